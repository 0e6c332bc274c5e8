"""The report section of a rotated model: where it is rotated, and what was proven of it.

It shows `rotation` of result.json, which node `rotate` fills ({rotations, type, block, seed,
tensors, untied, layers, residual, values}), and `rotations` ({difference, refused, keeps_mean,
kinds}).
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from pipeline.report.html import fragment
from pipeline.report.section import Result, Section

TEMPLATES = Path(__file__).parent


def page(result: Result) -> Markup:
    """The rotations of the model, and the modules that they reach by kind of layer."""
    rotation, proven = result.get("rotation") or {}, result.get("rotations") or {}
    return fragment(TEMPLATES, "rotation.html", rotation=rotation, proven=proven)


ROTATION = Section(order=340, mappings=("rotation", "rotations"), page=page)
