"""What `mode=sensitivity` tells: sensitivity.json, a page, and a table in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.report.html import environment
from pipeline.report.layer_heatmap import heat_map
from pipeline.report.units import number

FILE = "sensitivity.json"
SCHEMA = 1

Found = Mapping[str, Any]


def collected(contents: Sequence[Found]) -> dict[str, Any]:
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


def module_rows(contents: Sequence[Found]) -> Iterator[dict[str, Any]]:
    """One row for each module and candidate: name, candidate, elements, relative_error, bits."""
    for content in contents:
        for name, module in content["modules"].items():
            for candidate, found in module["candidates"].items():
                yield {
                    "name": name,
                    "candidate": candidate,
                    "elements": module["elements"],
                    **found,
                }


def _candidate(name: str, label: str, rows: Sequence[Found]) -> dict[str, Any]:
    mine = [row for row in rows if row["candidate"] == name]
    if not mine:
        return {"name": name, "label": label, "modules": 0}
    whole = sum(row["elements"] for row in mine)
    worst = max(mine, key=lambda row: row["relative_error"])
    damage = {"damage": sum(row["damage"] for row in mine)} if "damage" in worst else {}
    return damage | {
        "name": name,
        "label": label,
        "modules": len(mine),
        "bits_per_weight": sum(row["bits"] * row["elements"] for row in mine) / whole,
        "relative_error": sum(row["relative_error"] * row["elements"] for row in mine) / whole,
        "worst": {"name": worst["name"], "relative_error": worst["relative_error"]},
    }


def by_bits(found: Found) -> list[Found]:
    """The candidates that fit anywhere, the smallest first."""
    fitting = [each for each in found["candidates"] if each["modules"]]
    return sorted(fitting, key=lambda each: (each["bits_per_weight"], each["relative_error"]))


def print_table(found: Found, run_dir: Path, console: Console) -> None:
    """Print a line for each candidate, the smallest first, and where the page is."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("candidate")
    for heading in ("bits", "relative error", "damage", "modules"):
        table.add_column(heading, justify="right")
    table.add_column("worst module", overflow="fold")
    for each in by_bits(found):
        worst = each["worst"]
        table.add_row(
            escape(each["label"]),
            number(each["bits_per_weight"]),
            number(each["relative_error"], 3),
            number(each["damage"], 3) if "damage" in each else "",
            str(each["modules"]),
            escape(f"{worst['name']} ({number(worst['relative_error'], 3)})"),
        )
    console.print(table)
    console.print(f"page  {escape(str(run_dir / 'sensitivity.html'))}", soft_wrap=True)


def render(found: Found, config: Mapping[str, Any]) -> str:
    """The page: the table, and a heat map for each candidate."""
    contents = [
        {"layer": layer["name"], "modules": layer["modules"], "labels": {}}
        for layer in found["layers"]
    ]
    rows = list(module_rows(contents))
    maps = {
        each["name"]: heat_map(
            [row for row in rows if row["candidate"] == each["name"]],
            "relative_error",
            logarithmic=True,
        )
        for each in by_bits(found)
    }
    text: str = (
        environment()
        .get_template("sensitivity.html")
        .render(
            candidates=by_bits(found),
            damage=all("damage" in each for each in by_bits(found)),
            maps=maps,
            modules={
                name: module["candidates"]
                for c in contents
                for name, module in c["modules"].items()
            },
            labels={each["name"]: each["label"] for each in by_bits(found)},
            config=OmegaConf.to_yaml(OmegaConf.create(dict(config))),
        )
    )
    return text
