"""The end of a run in the terminal: what came out, what to look at, where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.report.tables import (
    Result,
    alerts,
    comparison,
    generations,
    limits,
    worst_layers,
)
from pipeline.report.units import duration, number

_HEADLINES = {
    "ok": "[bold green]done[/]",
    "failed": "[bold red]failed[/]",
    "interrupted": "[bold yellow]interrupted[/]",
}
_MOST_ALERTS = 12


def print_summary(result: Result, run_dir: Path, console: Console | None = None) -> None:
    """Print the summary of a result; readable without colour and at 80 columns."""
    out = console or Console(highlight=False)
    _alerts(result, out)
    out.print(f"\n{_HEADLINES[result['status']]} in {duration(result['seconds'])}{_reuse(result)}")
    if rows := comparison(result):
        table = _table("", "before", "after", "")
        for row in rows:
            table.add_row(row.what, row.before, row.after, row.change)
        out.print(table)
    _layers(result, out)
    _generations(result, out)
    _checks(result, out)
    for text in limits(result):
        out.print(f"[dim]note: {escape(text)}[/]", soft_wrap=True)
    if result["checkpoint"]:
        out.print(f"checkpoint  {escape(result['checkpoint'])}", soft_wrap=True)
    out.print(f"report      {escape(str(run_dir / 'report.html'))}", soft_wrap=True)
    if result["status"] != "ok" and result.get("resume"):
        out.print(f"go on with  {escape(result['resume'])}", soft_wrap=True)


def _table(*headings: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position else "left", overflow="fold")
    return table


def _alerts(result: Result, out: Console) -> None:
    found = alerts(result)
    for kind, text in found[:_MOST_ALERTS]:
        colour = "yellow" if kind in ("warning", "fallback") else "red"
        out.print(f"[{colour}]{kind}[/]: {escape(text)}", soft_wrap=True)
    if len(found) > _MOST_ALERTS:
        out.print(f"... and {len(found) - _MOST_ALERTS} more: see the report")


def _reuse(result: Result) -> str:
    hits, total = result["reuse"]["hits"], len(result["nodes"])
    if not hits:
        return ", nothing reused"
    saved = result["reuse"]["seconds_saved"]
    spared = f", {duration(saved)} saved" if saved else ""
    return f", {hits} of {total} nodes reused{spared}"


def _layers(result: Result, out: Console) -> None:
    worst = worst_layers(result)
    if not worst:
        return
    table = _table("worst layers", "relative error", "bits", "solver")
    for row in worst:
        table.add_row(
            escape(row["name"]),
            number(row["relative_error"], 3),
            number(row.get("bits"), 3),
            escape(_solver(row)),
        )
    out.print(table)


def _solver(row: Any) -> str:
    fallback = row.get("fallback")
    return f"{row.get('solver') or ''}{f' (fallback: {fallback})' if fallback else ''}"


def _generations(result: Result, out: Console) -> None:
    pairs = generations(result)
    if not pairs:
        return
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("prompt", "original", "compressed"):
        table.add_column(heading, ratio=1 if heading == "prompt" else 2, overflow="fold")
    for pair in pairs:
        table.add_row(*(_short(pair[name]) for name in ("prompt", "original", "compressed")))
    out.print(table)


def _short(text: str, most: int = 100) -> str:
    line = " ".join(text.split())
    return escape(line if len(line) <= most else f"{line[: most - 3]}...")


def _checks(result: Result, out: Console) -> None:
    checks = result["verify"].get("checks", ())
    if checks:
        passed = sum(check.get("ok") is True for check in checks)
        ran = sum(check.get("ok") is not None for check in checks)
        out.print(f"checks      {passed} of {ran} passed")
