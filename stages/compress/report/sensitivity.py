"""The report of `mode=sensitivity`: sensitivity.json, its page, a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.markup import escape
from rich.table import Table

from pipeline.report.html import fragment
from pipeline.report.section import Section, Study
from pipeline.report.units import number
from stages.compress.report.headline import headline
from stages.compress.report.layer_heatmap import heat_map

SCHEMA = 1

Content = Mapping[str, Any]
"""sensitivity.json of a node, or of all of them together (`collected`)."""


def collected(contents: Sequence[Content]) -> dict[str, Any]:
    """sensitivity.json: the modules of all layers, and every candidate over all of them.

    `bits_per_weight` and `relative_error` are means over the weights of the modules that the
    candidate fits, `damage`, where it was measured, is the sum over these modules;
    `layers[].modules.<name>.candidates.<name>` has all of each.
    """
    labels: dict[str, str] = {}
    for content in contents:
        labels |= content["labels"]
    rows = list(module_rows(contents))
    return {
        "schema": SCHEMA,
        "candidates": [_candidate(name, label, rows) for name, label in labels.items()],
        "layers": [{"name": c["layer"], "modules": c["modules"]} for c in contents],
    }


def module_rows(contents: Sequence[Content]) -> Iterator[dict[str, Any]]:
    """One row for each module and candidate: name, candidate, elements, relative_error, bits."""
    for content in contents:
        for name, module in content["modules"].items():
            for candidate, measured in module["candidates"].items():
                yield {
                    "name": name,
                    "candidate": candidate,
                    "elements": module["elements"],
                    **measured,
                }


def _candidate(name: str, label: str, rows: Sequence[Content]) -> dict[str, Any]:
    matching = [row for row in rows if row["candidate"] == name]
    if not matching:
        return {"name": name, "label": label, "modules": 0}
    whole = sum(row["elements"] for row in matching)
    worst = max(matching, key=lambda row: row["relative_error"])
    damage = {"damage": sum(row["damage"] for row in matching)} if "damage" in worst else {}
    return damage | {
        "name": name,
        "label": label,
        "modules": len(matching),
        "bits_per_weight": sum(row["bits"] * row["elements"] for row in matching) / whole,
        "relative_error": sum(row["relative_error"] * row["elements"] for row in matching) / whole,
        "worst": {"name": worst["name"], "relative_error": worst["relative_error"]},
    }


def by_bits(content: Content) -> list[Content]:
    """The candidates that fit anywhere, the smallest first."""
    fitting = [each for each in content["candidates"] if each["modules"]]
    return sorted(fitting, key=lambda each: (each["bits_per_weight"], each["relative_error"]))


def table(content: Content) -> Table:
    """A line for each candidate, the smallest first, for the terminal."""
    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column("candidate")
    for heading in ("bits", "relative error", "damage", "modules"):
        made.add_column(heading, justify="right")
    made.add_column("worst module", overflow="fold")
    for each in by_bits(content):
        worst = each["worst"]
        made.add_row(
            escape(each["label"]),
            number(each["bits_per_weight"]),
            number(each["relative_error"], 3),
            number(each["damage"], 3) if "damage" in each else "",
            str(each["modules"]),
            escape(f"{worst['name']} ({number(worst['relative_error'], 3)})"),
        )
    return made


def render(content: Content, config: Mapping[str, Any]) -> str:
    """The page: the table, and a heat map for each candidate."""
    layers = [
        {"layer": layer["name"], "modules": layer["modules"], "labels": {}}
        for layer in content["layers"]
    ]
    rows = list(module_rows(layers))
    candidates = by_bits(content)
    maps = {
        each["name"]: heat_map(
            [row for row in rows if row["candidate"] == each["name"]],
            "relative_error",
            logarithmic=True,
        )
        for each in candidates
    }
    return fragment(
        Path(__file__).parent,
        "sensitivity.html",
        candidates=candidates,
        damage=all("damage" in each for each in candidates),
        maps=maps,
        worst=worst_modules(rows, [each["name"] for each in candidates]),
        headline=dict(headline({}, config)),
        modules={
            name: module["candidates"]
            for layer in layers
            for name, module in layer["modules"].items()
        },
        labels={each["name"]: each["label"] for each in candidates},
        config=OmegaConf.to_yaml(OmegaConf.create(dict(config))),
    )


def worst_modules(
    rows: Sequence[Content], candidates: Sequence[str], count: int = 8
) -> list[tuple[str, list[float | None]]]:
    """The modules with the largest error under the first candidate, and their errors under all.

    A module that a candidate does not fit has None there.
    """
    errors: dict[str, dict[str, float]] = {}
    for row in rows:
        errors.setdefault(row["name"], {})[row["candidate"]] = row["relative_error"]
    fitting = [name for name, found in errors.items() if candidates and candidates[0] in found]
    fitting.sort(key=lambda name: (-errors[name][candidates[0]], name))
    return [(name, [errors[name].get(each) for each in candidates]) for name in fitting[:count]]


SENSITIVITY = Section(
    order=900,
    study=Study(
        collect=collected,
        page=render,
        table=table,
        missing="nothing in this graph measures sensitivities",
        remedy="say scheme=auto 'scheme.candidates=[w4a16,w8a16]'",
    ),
)
