"""`mode=inspect`: the examination that the framework calls, its tables and its page. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from pipeline.masking import printable
from pipeline.report.examination import Content, Examination
from pipeline.report.html import environment
from pipeline.report.units import counted, number, size
from stages.inspect.terminal import facts_table, rows_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pipeline.config.root import Config

LOADS = {True: "yes", False: "no", None: "not known"}


def examine(
    paths: Sequence[Path], config: Config, told: Callable[[float, str], None]
) -> dict[str, Any]:
    """The content of inspect.json for the one folder or file in `paths`."""
    from stages.inspect.run import inspect

    del config
    return inspect(paths[0], told)


def headline(content: Content) -> list[tuple[str, str]]:
    """The facts that stand above the tables, as (name, value)."""
    quantized = content["quantized"]
    told = [("architecture", content["architecture"] or "not stated")]
    method = content["method"]
    stated = f"{method or 'a method without a name'}, by {content['stated_in']}"
    told.append(("quantization", "none: all tensors are dense" if method is None else stated))
    for each in content["producers"]:
        named = f"{each['name']} {each['version']}".strip()
        told.append(("written by", f"{named} ({each['evidence']})"))
    told.append(("size", size(content["bytes"])))
    if quantized["modules"]:
        bits = number(quantized["bits_per_weight"])
        told.append(
            ("compressed", f"{counted(quantized['modules'], 'module')}, {bits} bits a weight")
        )
    return [(name, printable(str(value))) for name, value in told]


def row_facts(row: Mapping[str, Any]) -> dict[str, str]:
    """A row's cells by heading."""
    count = len(row["modules"])
    return {
        "modules": row["name"],
        "count": str(count),
        "format": row["format"],
        "layout": row["layout"],
        "groups": _groups(row),
        "bits": number(row["bits_per_weight"], 4),
        "inputs": row["inputs"],
        "scales": f"{row['scale_dtype']} {_range(row)}".strip(),
        "negative": _share(row["negative"], row["scales"]),
        "zeros": _share(row["zeros"], row["weights"]),
        "empty blocks": str(sum(each["count"] for each in row["empty"])),
        "zero points": _points(row),
    }


def _groups(row: Mapping[str, Any]) -> str:
    if row.get("block"):
        return " by ".join(map(str, row["block"]))
    return str(row["group_size"] or row["strategy"])


def _range(row: Mapping[str, Any]) -> str:
    if row["least"] is None:
        return ""
    return f"{number(row['least'], 3)} to {number(row['most'], 3)}"


def _points(row: Mapping[str, Any]) -> str:
    points = row.get("zero_points")
    return "none" if points is None else f"{points[0]} to {points[1]}"


def _share(part: int, whole: int) -> str:
    """A share as a percentage, also a tiny one: 3e-5 -> "0.003 %"."""
    return f"{number(100 * part / whole, 2)} %" if part and whole else "0"


def tables(content: Content) -> list[RenderableType]:
    """What the terminal prints: facts, rows, tensors that are dense, conventions, loaders."""
    shown: list[RenderableType] = [facts_table(headline(content))]
    rows = content["rows"]
    if rows:
        brief = ("modules", "count", "format", "groups", "bits", "scales", "negative", "zeros")
        shown.append(rows_table([row_facts(row) for row in rows], brief))
    dense = [
        {
            "dense tensors": row["name"],
            "count": str(row["tensors"]),
            "dtype": row["dtype"],
            "size": size(row["bytes"]),
        }
        for row in content["dense"]
    ]
    if dense:
        shown.append(rows_table(dense, tuple(dense[0])))
    shown += [
        Text(f"{each['what']}\n    {each['evidence']}\n    {_where(each['rows'])}".rstrip())
        for each in content["conventions"]
    ]
    shown += [
        Text(
            f"{each['engine']} {each['version']}: {LOADS[each['loads']]}: {printable(each['why'])}"
        )
        for each in content["loads"]
    ]
    return [*shown, *(Text(f"note: {printable(note)}") for note in content["notes"])]


def _where(rows: Sequence[str]) -> str:
    more = f" and {len(rows) - 2} more" if len(rows) > 2 else ""
    return f"in {', '.join(rows[:2])}{more}" if rows else ""


def page(content: Content) -> str:
    """inspect.html: one file, readable without a network."""
    env = environment(Path(__file__).parent)
    text: str = env.get_template("inspect.html").render(
        content=content,
        headline=headline(content),
        rows=[row_facts(row) for row in content["rows"]],
        dense=content["dense"],
        loads=LOADS,
    )
    return text


INSPECT = Examination(examine=examine, tables=tables, page=page)
