"""The report section of compressed layers: heat maps, worst layers, error distributions.

It shows these parts of result.json, which stages fill as `meta["result"]` of their artifacts:

    layers        [{name, scheme, solver, relative_error, bits, fallback}]
    distributions [{name, relative_error, weight: {edge, counts}, error: {edge, counts}}]
                  of the layers with the largest errors; counts are of equal bins, -edge to edge
    choice        {bits_per_weight, budget, ...}    where a stage chose the formats
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import RenderableType
from rich.markup import escape

from pipeline.report.html import fragment
from pipeline.report.section import Metric, Result, Section
from pipeline.report.tables import plain_table
from pipeline.report.units import number
from stages.compress.report.headline import headline
from stages.compress.report.layer_heatmap import HeatMap, heat_map

TEMPLATES = Path(__file__).parent

KEPT = 8
"""Layers whose distributions are kept in result.json: those with the largest errors."""

_TITLES = {"relative_error": "relative error", "bits": "bits per weight"}
_RATIOS = ("relative_error",)
_SHOWN = {
    "scheme": "format",
    "bits": "bits per weight",
    "relative_error": "relative error",
    "solver": "solver",
    "fallback": "fallback",
}


def keep_worst(result: dict[str, Any]) -> None:
    """Sort the distributions, the largest error first, and keep KEPT of them."""
    result["distributions"].sort(key=lambda row: (-row["relative_error"], row["name"]))
    del result["distributions"][KEPT:]


def relative_error(result: Result) -> float | None:
    """Mean relative error of the layers of a result (no unit), None where there is none."""
    errors = [
        row["relative_error"]
        for row in result.get("layers", ())
        if row.get("relative_error") is not None
    ]
    return sum(errors) / len(errors) if errors else None


def worst_layers(result: Result, count: int = 5) -> list[Mapping[str, Any]]:
    """The layers with the largest relative error, the worst first."""
    known = [row for row in result["layers"] if row.get("relative_error") is not None]
    return sorted(known, key=lambda row: (-row["relative_error"], row["name"]))[:count]


def distributions(result: Result, count: int = 6) -> list[Mapping[str, Any]]:
    """Weights and errors of the worst layers, with the heights of bars as shares of the highest."""
    return [
        {
            "name": row["name"],
            "relative_error": row["relative_error"],
            "parts": [
                (part, row[part]["edge"], _heights(row[part])) for part in ("weight", "error")
            ],
        }
        for row in result.get("distributions", ())[:count]
    ]


def _heights(histogram: Mapping[str, Any]) -> list[float]:
    most = max(histogram["counts"], default=0) or 1
    return [value / most for value in histogram["counts"]]


def summary(result: Result) -> list[RenderableType]:
    """The table of the worst layers for the terminal."""
    worst = worst_layers(result)
    if not worst:
        return []
    table = plain_table("worst layers", "relative error", "bits", "solver")
    for row in worst:
        table.add_row(
            escape(row["name"]),
            number(row["relative_error"], 3),
            number(row.get("bits"), 3),
            escape(_solver(row)),
        )
    return [table]


def _solver(row: Mapping[str, Any]) -> str:
    fallback = row.get("fallback")
    return f"{row.get('solver') or ''}{f' (fallback: {fallback})' if fallback else ''}"


def header(result: Result) -> Markup:
    """The budget that the formats were chosen for, where they were."""
    return fragment(TEMPLATES, "formats.html", choice=result.get("choice"))


def page(result: Result) -> Markup:
    """Heat maps of all layers, the worst layers, and histograms of their weights and errors."""
    return fragment(
        TEMPLATES,
        "layers.html",
        maps=_maps(result),
        worst=worst_layers(result),
        distributions=distributions(result),
    )


def scripts(result: Result) -> Markup:
    """The facts of every cell of the heat maps as JSON, and the script that shows them."""
    cells = {"kind": "modules", "cells": _cells(_maps(result))}
    return fragment(TEMPLATES, "cells.html", cells=cells)


def _maps(result: Result) -> dict[str, HeatMap]:
    maps = {
        title: heat_map(result["layers"], field, logarithmic=field in _RATIOS)
        for field, title in _TITLES.items()
    }
    return {title: each for title, each in maps.items() if each is not None}


def _cells(maps: Mapping[str, HeatMap]) -> dict[str, dict[str, Any]]:
    """The facts to show of a chosen cell, by the name of its module."""
    return {
        cell.row["name"]: {
            **{shown: cell.row.get(field) for field, shown in _SHOWN.items()},
            "modules": f"the worst of {cell.count}" if cell.count > 1 else None,
        }
        for each in maps.values()
        for cells in each.rows.values()
        for cell in cells
    }


def made(result: Result) -> str:
    """The formats of a run's modules, the most frequent first, in a few words."""
    counts = Counter(str(row["scheme"]) for row in result.get("layers", ()) if row.get("scheme"))
    names = [name for name, _ in counts.most_common()]
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


LAYERS = Section(
    order=300,
    column=("scheme", made),
    lists=("layers", "distributions"),
    finish=keep_worst,
    metrics=(
        Metric(
            field="relative_error",
            path="layers.relative_error",
            title="mean error",
            name="mean relative error",
            role="quality",
            show=lambda value: number(value, 3),
            compute=relative_error,
        ),
    ),
    summary=summary,
    headline=headline,
    header=header,
    page=page,
    scripts=scripts,
    graph_note=Markup("↻: a layer's step is fed by that of the layer before it."),
)
