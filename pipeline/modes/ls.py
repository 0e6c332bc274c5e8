"""`mode=ls`: list runs, sweeps and the artifacts of the store, with sizes."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.config.root import Config
from pipeline.report.section import quality_metrics, sections
from pipeline.report.units import counted, duration, nearby, size
from pipeline.runs.folders import Run, Sweep, known_runs, sweeps_of
from pipeline.store import Entry, Store

WIDE = 120
"""Columns of a terminal that has room for a row a run."""
MOST = 200
"""Artifacts that are listed one by one, at most, when a filter is given."""


def ls(config: Config, run_dir: Path) -> int:
    """Print runs, sweeps and the store's artifacts, with sizes; exit code 0.

    `ls.filter` keeps the runs with that text in their folder, experiment, model or status, and the
    artifacts with it in their kind, node or key, which are then listed one by one.
    """
    del run_dir
    console, wanted = Console(highlight=False), config.ls.filter
    store = Store(config.store)
    known = known_runs(config.runs, store.layout)
    runs = [run for run in known if _matches(wanted, *_words(run))]
    if console.width >= WIDE:
        console.print(_runs(runs))
    else:
        _print_runs(runs, console)
    if sweeps := sweeps_of(runs):
        console.print(_sweeps(sweeps, pages=console.width >= WIDE))
    entries = [e for e in store.entries() if _matches(wanted, e.kind, e.node, e.key, e.output)]
    console.print(_artifacts(entries) if wanted is None else _one_by_one(entries))
    console.print(
        f"{counted(len(entries), 'artifact')} in {store.root}, "
        f"{size(sum(e.bytes for e in entries))}; "
        f"{size(store.free_bytes())} free on its disk"
    )
    return 0


def _words(run: Run) -> tuple[str, ...]:
    return (str(run.folder), run.status, run.experiment, run.model, *_columns(run).values())


def _matches(wanted: str | None, *names: str) -> bool:
    return wanted is None or any(wanted.casefold() in name.casefold() for name in names)


def _columns(run: Run) -> dict[str, str]:
    """What report sections tell of a run in a list: column -> text."""
    told = {each.column[0]: each.column[1](run.result) for each in sections() if each.column}
    return {**told, "quality": _quality(run)}


def _quality(run: Run) -> str:
    """The preferred measure of quality that the run has, with its name."""
    for metric in quality_metrics():
        value = metric.of(run.result) if run.result else None
        if value is not None:
            return f"{metric.title} {metric.show(value)}"
    return ""


def _runs(runs: list[Run]) -> Table:
    """One row a run, for wide terminals."""
    columns = [_columns(run) for run in runs]
    named = list(dict.fromkeys(name for each in columns for name in each))
    table = Table("run", "experiment", "model", "status", title="runs", box=None)
    for heading in named:
        table.add_column(heading)
    for heading in ("time", "built", "reused", "checkpoint"):
        table.add_column(heading, justify="right")
    for run, told in zip(runs, columns, strict=True):
        table.add_row(
            *map(escape, (nearby(run.folder), run.experiment, run.model, run.status)),
            *(escape(told[name]) for name in named),
            duration(run.seconds) if run.seconds else "",
            str(run.built),
            str(run.reused),
            size(run.bytes) if run.bytes else "",
        )
    return table


def _print_runs(runs: list[Run], console: Console) -> None:
    """Two lines a run, for terminals of 80 columns: its folder, which is not broken, and facts."""
    for run in runs:
        console.print(Text(nearby(run.folder)), soft_wrap=True)
        facts = [
            run.status,
            run.experiment,
            run.model,
            *_columns(run).values(),
            size(run.bytes) if run.bytes else "",
            duration(run.seconds) if run.seconds else "",
            f"{run.built} built, {run.reused} reused" if run.seconds else "",
        ]
        console.print(Text(f"  {'; '.join(fact for fact in facts if fact)}"))


def _sweeps(sweeps: list[Sweep], *, pages: bool) -> Table:
    table = Table("sweep", title="sweeps", box=None)
    for heading in ("jobs", "ok", "time", "checkpoints"):
        table.add_column(heading, justify="right")
    if pages:
        table.add_column("page")
    for sweep in sweeps:
        page = sweep.folder / "sweep.html"
        table.add_row(
            Text(nearby(sweep.folder), overflow="fold"),
            str(len(sweep.runs)),
            str(sum(run.status == "ok" for run in sweep.runs)),
            duration(sum(run.seconds for run in sweep.runs)),
            size(sum(run.bytes for run in sweep.runs)),
            *([nearby(page) if page.is_file() else ""] if pages else ()),
        )
    return table


def _artifacts(entries: list[Entry]) -> Table:
    by_kind: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_kind[f"{entry.kind}.{entry.output}"].append(entry)
    table = Table("artifacts", title="store", box=None)
    for heading in ("number", "size", "last used"):
        table.add_column(heading, justify="right")
    for kind, group in sorted(by_kind.items(), key=lambda item: -sum(e.bytes for e in item[1])):
        used = _when(max(e.used for e in group))
        table.add_row(kind, str(len(group)), size(sum(e.bytes for e in group)), used)
    return table


def _one_by_one(entries: list[Entry]) -> Table:
    table = Table("artifact", "output", "key", title="store", box=None)
    for heading in ("size", "last used"):
        table.add_column(heading, justify="right")
    for entry in sorted(entries, key=lambda entry: -entry.bytes)[:MOST]:
        table.add_row(
            entry.node, entry.output, entry.key[:12], size(entry.bytes), _when(entry.used)
        )
    if len(entries) > MOST:
        table.add_row(f"and {len(entries) - MOST} smaller ones", "", "", "", "")
    return table


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
