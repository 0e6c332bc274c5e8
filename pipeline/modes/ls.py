"""`mode=ls`: list runs, sweeps and the artifacts of the store, with sizes."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.config.root import Config
from pipeline.report.units import nearby, size
from pipeline.runs.folders import Run, Sweep, find_runs, sweeps_of
from pipeline.store import Entry, Store

MOST = 200
"""Artifacts that are listed one by one, at most, when a filter is given."""


def ls(config: Config, run_dir: Path) -> int:
    """Print runs, sweeps and the store's artifacts, with sizes; exit code 0.

    `ls.filter` keeps the runs with that text in their folder, experiment, model or status, and the
    artifacts with it in their kind, node or key, which are then listed one by one.
    """
    del run_dir
    console, wanted = Console(highlight=False), config.ls.filter
    runs = [run for run in find_runs(config.runs) if _matches(wanted, *_words(run))]
    console.print(_runs(runs))
    if sweeps := sweeps_of(runs):
        console.print(_sweeps(sweeps))
    store = Store(config.store)
    entries = [e for e in store.entries() if _matches(wanted, e.kind, e.node, e.key, e.output)]
    console.print(_artifacts(entries) if wanted is None else _one_by_one(entries))
    console.print(
        f"{len(entries)} artifacts in {store.root}, {size(sum(e.bytes for e in entries))}; "
        f"{size(store.free_bytes())} free on its disk"
    )
    return 0


def _words(run: Run) -> tuple[str, ...]:
    return (str(run.folder), run.status, run.experiment, run.model)


def _matches(wanted: str | None, *names: str) -> bool:
    return wanted is None or any(wanted.casefold() in name.casefold() for name in names)


def _runs(runs: list[Run]) -> Table:
    table = Table("run", "experiment", "model", "status", title="runs", box=None)
    for heading in ("time", "built", "reused", "checkpoint"):
        table.add_column(heading, justify="right")
    for run in runs:
        table.add_row(
            nearby(run.folder),
            run.experiment,
            run.model,
            run.status,
            f"{run.seconds:.0f} s" if run.seconds else "",
            str(run.built),
            str(run.reused),
            size(run.bytes) if run.bytes else "",
        )
    return table


def _sweeps(sweeps: list[Sweep]) -> Table:
    table = Table("sweep", title="sweeps", box=None)
    for heading in ("jobs", "ok", "time", "checkpoints"):
        table.add_column(heading, justify="right")
    table.add_column("page")
    for sweep in sweeps:
        page = sweep.folder / "sweep.html"
        table.add_row(
            nearby(sweep.folder),
            str(len(sweep.runs)),
            str(sum(run.status == "ok" for run in sweep.runs)),
            f"{sum(run.seconds for run in sweep.runs):.0f} s",
            size(sum(run.bytes for run in sweep.runs)),
            nearby(page) if page.is_file() else "",
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
