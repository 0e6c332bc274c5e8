"""The report section of pruned experts: which stayed in every layer, and what they added.

It shows `experts` of result.json, which node `reap` fills: [{name, experts, kept, values, tokens}],
`values` and `tokens` being the saliency of every expert and how many tokens were routed to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline.report.html import fragment
from pipeline.report.section import Result, Section

TEMPLATES = Path(__file__).parent


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table: how much of the layer's saliency goes, and which experts."""
    kept = frozenset(row["kept"])
    gone = [expert for expert in range(row["experts"]) if expert not in kept]
    total, lost = sum(row["values"]), sum(row["values"][expert] for expert in gone)
    return {
        "name": row["name"],
        "experts": row["experts"],
        "left": len(kept),
        "lost": lost / total if total else None,
        "gone": ", ".join(map(str, gone)),
    }


def page(result: Result) -> Markup:
    """The layers in order."""
    return fragment(TEMPLATES, "experts.html", rows=[shown(r) for r in result.get("experts", ())])


EXPERTS = Section(order=340, lists=("experts",), page=page)
