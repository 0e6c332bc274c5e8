"""The report section of searched factors: what AWQ and the like chose for every smoothing pair.

It shows `searched` of result.json, which `compress` fills where a transform searches:
[{name, modifier, targets, error_before, error, and the options chosen, null where none helped}].
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline.report.html import fragment
from pipeline.report.section import Result, Section

TEMPLATES = Path(__file__).parent
SHOWN = 200
"""Pairs in the page; result.json has all."""
_COMMON = ("name", "modifier", "targets", "error_before", "error")


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table: readers by the last part of their names, options in words."""
    options = {name: value for name, value in row.items() if name not in _COMMON}
    leaves = dict.fromkeys(name.rpartition(".")[2] for name in row["targets"])
    chosen = [f"{name} {value}" for name, value in options.items() if value is not None]
    return {**row, "readers": ", ".join(leaves), "chosen": ", ".join(chosen) or "none"}


def page(result: Result) -> Markup:
    """The pairs that factors were searched for, those first whose error was largest."""
    rows = sorted(result.get("searched", ()), key=lambda row: (-row["error_before"], row["name"]))
    return fragment(TEMPLATES, "searched.html", rows=[shown(row) for row in rows[:SHOWN]])


SEARCHED = Section(order=360, lists=("searched",), page=page)
