"""report.html: one file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from omegaconf import OmegaConf

from pipeline.report import tables as view
from pipeline.report import units
from pipeline.report.graph_svg import picture
from pipeline.report.layer_heatmap import HeatMap, heat_map
from pipeline.report.timeline import extent, lanes

_TITLES = {"relative_error": "relative error", "bits": "bits per weight"}
_RATIOS = ("relative_error",)
_SHOWN = {
    "scheme": "format",
    "bits": "bits per weight",
    "relative_error": "relative error",
    "solver": "solver",
    "fallback": "fallback",
}


def environment(*folders: Path) -> Environment:
    """Where the templates of all pages are, `folders` first, with the filters that they use."""
    made = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "size": units.size,
        "duration": units.duration,
        "number": units.number,
        "words": view.words,
    }
    return made


def render(result: view.Result, config: Mapping[str, Any]) -> str:
    """The page for a result (as in result.json) and the config (plain data) that made it."""
    maps = {
        title: found
        for field, title in _TITLES.items()
        if (found := heat_map(result["layers"], field, logarithmic=field in _RATIOS)) is not None
    }
    whole, memory = extent(result["nodes"])
    page = environment().get_template("template.html")
    text: str = page.render(
        result=result,
        rows=view.comparison(result),
        worst=view.worst_layers(result),
        alerts=view.alerts(result),
        limits=view.limits(result),
        generations=view.generations(result),
        formats=view.formats(result),
        distributions=view.distributions(result),
        choice=result.get("choice"),
        maps=maps,
        cells={"kind": "modules", "cells": _cells(maps)},
        lanes=lanes(result["nodes"]),
        whole=whole,
        memory=memory,
        picture=picture(result["nodes"], config),
        config=OmegaConf.to_yaml(OmegaConf.create(dict(config))),
    )
    return text


def _cells(maps: Mapping[str, HeatMap]) -> dict[str, dict[str, Any]]:
    """What the page shows of a cell that was chosen, by the name of its module."""
    return {
        cell.row["name"]: {
            **{shown: cell.row.get(field) for field, shown in _SHOWN.items()},
            "modules": f"the worst of {cell.count}" if cell.count > 1 else None,
        }
        for found in maps.values()
        for cells in found.rows.values()
        for cell in cells
    }
