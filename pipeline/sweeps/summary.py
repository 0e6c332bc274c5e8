"""Summary of a sweep in the terminal: a short leaderboard, and the jobs that are not done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.report import units
from pipeline.sweeps.columns import columns
from pipeline.sweeps.files import PAGE
from pipeline.sweeps.page import by_quality

PHRASES = {"interrupted": "was interrupted", "missing": "is missing"}
"""Status of a job that is not done -> the verb that says so."""


def print_summary(sweep: Mapping[str, Any], folder: Path, console: Console) -> None:
    """Print the jobs, the best first; what was shared, what failed, and the page's path."""
    # a terminal is narrow: the page has the other columns
    shown = [column for column in columns(sweep) if column.brief]
    table = Table("job", box=None, header_style="bold")
    for column in shown:
        table.add_column(escape(column.title), justify="right" if column.numeric else "left")
    table.add_column("")
    for job in by_quality(sweep):
        cells = [escape(column.show(column.value(job))) for column in shown]
        mark = "*" if job["front"] else ""
        table.add_row(str(job["number"]), *cells, mark if job["status"] == "ok" else job["status"])
    console.print(table)
    shared = sweep["sharing"]
    if shared["shared"]:
        console.print(
            f"{shared['shared']} of {shared['needed']} results came from another job: "
            f"{units.duration(shared['seconds_saved'])} saved"
        )
    troubled = [job for job in sweep["jobs"] if job["status"] != "ok"]
    if troubled:
        console.print(
            f"{len(troubled)} of {units.counted(len(sweep['jobs']), 'job')} "
            f"{'is' if len(troubled) == 1 else 'are'} not done:"
        )
    for job in troubled:
        reason = (job["error"] or "").partition("\n")[0]
        differs = [f"{key}={value}" for key, value in job["differs"].items()]
        overrides = " ".join(differs or job["overrides"])
        told = [f"  job {job['number']} {PHRASES.get(job['status'], job['status'])}"]
        line = ": ".join([*told, *(text for text in (overrides, reason) if text)])
        console.print(line, markup=False, soft_wrap=True)
    # after an interrupt the command is told with what it does
    if troubled and all(job["status"] != "interrupted" for job in troubled):
        console.print("the same command again runs only what is missing")
    console.print(f"sweep: {folder / PAGE}", markup=False, soft_wrap=True)
