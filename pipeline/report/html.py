"""report.html: one self-contained file, with the HTML fragments of the registered sections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from omegaconf import OmegaConf

from pipeline.report import tables, units
from pipeline.report.graph_svg import picture
from pipeline.report.section import MIDDLE, Result, Section, sections
from pipeline.report.timeline import device_extent, extent, lanes, storing
from pipeline.report.workers import worker_lanes


def environment(*folders: Path) -> Environment:
    """Jinja's environment for templates in `folders` and in this one, with the pages' filters."""
    env = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "size": units.size,
        "duration": units.duration,
        "number": units.number,
        "words": tables.words,
    }
    return env


def fragment(folder: Path, template: str, **values: Any) -> Markup:
    """A template of `folder` rendered to a part of a page; the values are escaped."""
    return Markup(environment(folder).get_template(template).render(**values))  # noqa: S704 - escaped


def render(result: Result, config: Mapping[str, Any]) -> str:
    """The page for a result (as in result.json) and the config (plain data) that made it."""
    shown = sections()
    headline = dict(
        each for part in shown if part.headline for each in part.headline(result, config)
    )
    whole, memory = extent(result["nodes"])
    page = environment().get_template("template.html")
    text: str = page.render(
        result=result,
        headline=headline,
        verdict=tables.verdict(result, config),
        files=_files(result),
        headers=[each.header(result) for each in shown if each.header],
        rows=tables.comparison(result),
        alerts=tables.alerts(result),
        limits=tables.limits(result),
        early=_pages(result, (each for each in shown if each.order < MIDDLE)),
        late=_pages(result, (each for each in shown if each.order >= MIDDLE)),
        scripts=[each.scripts(result) for each in shown if each.scripts],
        css=Markup("").join(Markup(each.css) for each in shown),  # noqa: S704 - not of the result
        graph_notes=[each.graph_note for each in shown if each.graph_note],
        lanes=lanes(result["nodes"]),
        storing=storing(result["nodes"]),
        workers=worker_lanes(result),
        whole=whole,
        memory=memory,
        device_memory=device_extent(result["nodes"]),
        picture=picture(result["nodes"], config),
        config=OmegaConf.to_yaml(OmegaConf.create(dict(config))),
    )
    return text


def _pages(result: Result, shown: Iterable[Section]) -> list[Markup]:
    return [each.page(result) for each in shown if each.page]


def _files(result: Result) -> list[tuple[str, str]]:
    """Name and relative path of what lies beside the page in a run folder."""
    published = [f"{PurePath(result['checkpoint']).name}/"] if result["checkpoint"] else []
    return [(name, quote(name)) for name in (*published, "result.json", "config.yaml", "run.log")]
