"""Summary of a run in the terminal: alerts, results, caveats, and the paths of the files."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from pipeline.report.section import Result, sections
from pipeline.report.tables import alerts, comparison, device_peak, limits, plain_table
from pipeline.report.units import duration, size

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
        table = plain_table("", "before", "after", "")
        for row in rows:
            table.add_row(row.what, row.before, row.after, row.change)
        out.print(table)
    for section in sections():
        for part in section.summary(result) if section.summary else ():
            out.print(part)
    if peak := device_peak(result):
        out.print(f"device memory  {size(peak[1])} at most, in {escape(peak[0])}")
    for text in limits(result):
        out.print(f"[dim]note: {escape(text)}[/]", soft_wrap=True)
    if result["checkpoint"]:
        out.print(f"checkpoint  {escape(result['checkpoint'])}", soft_wrap=True)
    out.print(f"report      {escape(str(run_dir / 'report.html'))}", soft_wrap=True)
    if result["status"] != "ok" and result.get("resume"):
        out.print(f"go on with  {escape(result['resume'])}", soft_wrap=True)


def _alerts(result: Result, out: Console) -> None:
    listed = alerts(result)
    for kind, text in listed[:_MOST_ALERTS]:
        colour = "yellow" if kind in ("warning", "fallback") else "red"
        out.print(f"[{colour}]{kind}[/]: {escape(text)}", soft_wrap=True)
    if len(listed) > _MOST_ALERTS:
        out.print(f"... and {len(listed) - _MOST_ALERTS} more: see the report")


def _reuse(result: Result) -> str:
    hits, total = result["reuse"]["hits"], len(result["nodes"])
    if not hits:
        return ", nothing reused"
    saved = result["reuse"]["seconds_saved"]
    spared = f", {duration(saved)} saved" if saved else ""
    return f", {hits} of {total} nodes reused{spared}"
