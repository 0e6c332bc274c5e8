"""`mode=diff`: the examination that the framework calls, its tables and its page. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from pipeline.masking import printable
from pipeline.report.examination import Content, Examination
from pipeline.report.html import environment
from pipeline.report.units import counted, number
from pipeline.store import Store
from stages.inspect.terminal import facts_table, rows_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pipeline.config.root import Config

SAME = "same"
BRIEF = ("tensors", "count", "formats", "codes", "scales", "weights", "largest", "relative")


def examine(
    paths: Sequence[Path], config: Config, told: Callable[[float, str], None]
) -> dict[str, Any]:
    """The content of diff.json for two folders."""
    from stages.inspect.diff import compare
    from stages.inspect.statistics import grams_of

    one, other = paths
    run = Path(config.diff.statistics) if config.diff.statistics is not None else one.parent
    named = config.diff.statistics is not None or (run / "plan.json").is_file()
    grams = grams_of(run, Store(config.store)) if named else None
    return compare((one, other), tolerance=config.diff.tolerance, grams=grams, told=told)


def verdict(content: Content) -> str:
    """One sentence on what was found."""
    ends = [
        f"{name} has {counted(len(names), 'tensor')} of its own" for name, names in _own(content)
    ]
    if content["shapes"]:
        ends.append(f"{counted(len(content['shapes']), 'tensor')} of other shapes")
    alone = f"; {'; '.join(ends)}" if ends else ""
    tensors = counted(content["tensors"], "tensor")
    if not content["different"]:
        return f"No difference: all decoded numbers of {tensors} are equal{alone}."
    within = "" if content["differs"] else f", within the tolerance of {content['tolerance']:g}"
    return f"{content['different']} of {tensors} differ{within}{alone}."


def _own(content: Content) -> list[tuple[str, list[str]]]:
    names = ("the first", "the second")
    return [(n, own) for n, own in zip(names, content["alone"], strict=True) if own]


def row_facts(row: Mapping[str, Any]) -> dict[str, str]:
    """A row's cells by heading."""
    a, b = row["formats"]
    weights = row["weights"]
    return {
        "tensors": row["name"],
        "count": str(len(row["tensors"])),
        "formats": a if a == b else f"{a} and {b}",
        "codes": _counts(row["codes"]),
        "scales": _counts(row["scales"]),
        "weights": _counts(weights),
        "largest": number(row["largest"], 3) if row["largest"] else "0",
        "relative": number(row["relative"], 3) if row["relative"] else "0",
        "outputs": "" if row["output"] is None else number(row["output"], 3),
        "the largest in": row["worst"] if weights["different"] else "",
    }


def _counts(counts: Mapping[str, Any] | None) -> str:
    """How many differ: "same", "12 of 4096", "" where they cannot be compared."""
    if counts is None:
        return ""
    if not counts["different"]:
        return SAME
    return f"{counts['different']} of {counts['total']}"


def facts(content: Content) -> list[tuple[str, str]]:
    """What stands above the rows, as (name, value)."""
    methods = [method or "dense" for method in content["methods"]]
    told = [
        ("first", f"{content['checkpoints'][0]} ({methods[0]})"),
        ("second", f"{content['checkpoints'][1]} ({methods[1]})"),
    ]
    if content["statistics"]:
        told.append(("outputs weighed by", f"the calibration of {content['statistics']}"))
    return told


def differing(content: Content) -> list[Mapping[str, Any]]:
    """The rows whose decoded numbers, codes or scales are not the same, the largest first."""
    found = [
        row
        for row in content["rows"]
        if any(row[k] and row[k]["different"] for k in ("weights", "codes", "scales"))
    ]
    return sorted(found, key=lambda row: -row["relative"])


def tables(content: Content) -> list[RenderableType]:
    """What the terminal prints: both checkpoints, rows that differ, the verdict."""
    shown: list[RenderableType] = [facts_table(facts(content))]
    rows = [row_facts(row) for row in differing(content)]
    if rows:
        outputs = ("outputs",) if any(row["outputs"] for row in rows) else ()
        shown.append(rows_table(rows, (*BRIEF, *outputs)))
    for name, names in _own(content):
        shown.append(Text(f"only in {name}: {printable(', '.join(names[:5]))}"))
    shown += [Text(printable(text)) for text in content["shapes"][:5]]
    return [*shown, Text(verdict(content))]


def page(content: Content) -> str:
    """diff.html: one file, readable without a network."""
    env = environment(Path(__file__).parent)
    text: str = env.get_template("diff.html").render(
        content=content,
        facts=facts(content),
        verdict=verdict(content),
        differing=[row_facts(row) for row in differing(content)],
        same=[
            row_facts(row)
            for row in content["rows"]
            if not any(row is each for each in differing(content))
        ],
        alone=_own(content),
    )
    return text


DIFF = Examination(examine=examine, tables=tables, page=page)
