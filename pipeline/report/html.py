"""report.html: one file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from omegaconf import OmegaConf

from pipeline.report import units, view
from pipeline.report.heat import heat_map
from pipeline.report.timeline import lanes

_TITLES = {"relative_error": "relative error", "bits": "bits per weight"}


def environment() -> Environment:
    """Where the templates of all pages are, with the filters that they use."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
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
        if (found := heat_map(result["layers"], field)) is not None
    }
    text: str = (
        environment()
        .get_template("template.html")
        .render(
            result=result,
            rows=view.comparison(result),
            worst=view.worst_layers(result),
            alerts=view.alerts(result),
            limits=view.limits(result),
            generations=view.generations(result),
            maps=maps,
            lanes=lanes(result["nodes"]),
            config=OmegaConf.to_yaml(OmegaConf.create(dict(config))),
        )
    )
    return text
