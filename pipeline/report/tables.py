"""Tables and lists of a run that both the terminal summary and the page show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from pipeline.messages import together
from pipeline.report.section import Config, Result, Row, sections


def comparison(result: Result) -> list[Row]:
    """The before/after table: the rows of all sections, only of what the run measured."""
    return [row for each in sections() if each.rows for row in each.rows(result)]


def verdict(result: Result, config: Config) -> str:
    """One sentence on what came of a run: the phrases of all sections, or why it was not done."""
    if result["status"] != "ok":
        first = str(result.get("error") or "").partition("\n")[0]
        return f"Not done: {first}" if first else f"Not done: {result['status']}"
    phrases = [x for each in sections() if each.verdict for x in each.verdict(result, config)]
    told = "; ".join(phrases)
    return f"{told[0].upper()}{told[1:]}." if told else ""


def alerts(result: Result) -> list[tuple[str, str]]:
    """Errors, the sections' alerts, fallbacks and warnings as (kind, text), the gravest first."""
    error = [("error", result["error"])] if result.get("error") else []
    return [
        *error,
        *(alert for each in sections() if each.alerts for alert in each.alerts(result)),
        *(("fallback", text) for text in together(map(words, result["fallbacks"]))),
        *(("warning", text) for text in together(map(words, result["warnings"]))),
    ]


def limits(result: Result) -> list[str]:
    """Caveats: which numbers are estimates or small samples, and what could not be checked."""
    notes = [words(item) for item in result["estimates"]]
    notes += [text for each in sections() if each.limits for text in each.limits(result)]
    if result["reuse"]["seconds_saved"]:
        notes.append("seconds saved by reuse are those the results took when they were built")
    if any(node["peak_rss_bytes"] for node in result["nodes"]):
        notes.append("peak memory is that of the whole process while the node ran")
    if device_peak(result) is not None:
        notes.append("device memory is what tensors took: a GPU needs about 1 GB beside them")
    return notes + [f"not checked: {words(item)}" for item in result["not_checked"]]


def device_peak(result: Result) -> tuple[str, int] | None:
    """The node that took the most memory of GPUs, and how much; None where none was used."""
    found = [
        (node["name"], peak)
        for node in result["nodes"]
        if (peak := node.get("peak_device_bytes")) is not None  # an old result does not tell
    ]
    return max(found, key=lambda each: each[1], default=None)


def words(item: Any) -> str:
    """An entry of a list in result.json as a line: a text, or a mapping of a few facts."""
    if isinstance(item, Mapping):
        return ", ".join(f"{name} {value}" for name, value in item.items() if value is not None)
    return str(item)


def plain_table(*headings: str) -> Table:
    """A table without lines for the terminal; all columns but the first are aligned right."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position else "left", overflow="fold")
    return table
