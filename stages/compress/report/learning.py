"""The report section of learned rounding: the loss of every layer before and after.

It shows `learning` of result.json, which `compress` fills where a modifier learns:
[{layer, before, after, kept, iterations}]. before, after: mean squared difference between the
layer's output and the original model's, as a part of the square of the latter at each token, on
the sequences that were learned from or, where some are, on those held out, with the codes that
learning started from and with those that were kept; kept: the iteration after which they were.
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from pipeline.report.html import fragment
from pipeline.report.section import Result, Section

TEMPLATES = Path(__file__).parent


def page(result: Result) -> Markup:
    """One row a layer: loss before and after, and which iteration was kept."""
    return fragment(TEMPLATES, "learning.html", layers=result.get("learning", ()))


LEARNING = Section(order=360, lists=("learning",), page=page)
