"""The report section of GPTQ aimed at the original's outputs: what was lost, and what is left.

It shows `aimed` of result.json, which `compress` fills where modifier=gptaq runs the layers:
[{layer, module, aimed_at, before, after}]. aimed_at: its own output, the input of a module, or the
layer's output. before, after: squared difference of what stands there in the compressed and in the
original model, as a part of the square of the latter, summed over calibration tokens: with the
module's own weight behind all that was quantized before it, and with its quantized one.
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from pipeline.report.html import fragment
from pipeline.report.section import Result, Section

TEMPLATES = Path(__file__).parent


def page(result: Result) -> Markup:
    """One row a module: where it is aimed, and the difference before and after."""
    return fragment(TEMPLATES, "aim.html", modules=result.get("aimed", ()))


AIM = Section(order=361, lists=("aimed",), page=page)
