"""The report section of smoothing pairs: those that were proven, by kind of layer, and refusals.

It shows `pairs` of result.json, which node `pairs` fills where a transform takes part:
{kinds: [{layers, pairs: [{source, targets}]}], refused: [text]}.
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from pipeline.report.html import fragment
from pipeline.report.section import Result, Section

TEMPLATES = Path(__file__).parent


def page(result: Result) -> Markup:
    """The pairs of every kind of layer, and what came near and was refused."""
    found = result.get("pairs") or {}
    kinds, refused = found.get("kinds", ()), found.get("refused", ())
    return fragment(TEMPLATES, "pairs.html", kinds=kinds, refused=refused)


PAIRS = Section(order=350, mappings=("pairs",), page=page)
