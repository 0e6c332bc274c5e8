"""`mode=ls`: the runs that are here, and what the store holds."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.config import Config
from pipeline.report.units import size
from pipeline.runs import find_runs
from pipeline.store import Entry, Store


def ls(config: Config, run_dir: Path) -> int:
    """Print the runs and the store's artifacts by kind, with sizes; exit code 0."""
    del run_dir
    console = Console(highlight=False)
    console.print(_runs(config))
    store = Store(config.store)
    entries = list(store.entries())
    console.print(_artifacts(entries))
    console.print(
        f"{len(entries)} artifacts in {store.root}, {size(sum(e.bytes for e in entries))}; "
        f"{size(store.free_bytes())} free on its disk"
    )
    return 0


def _runs(config: Config) -> Table:
    table = Table("run", "status", title="runs", box=None, header_style="bold")
    for heading in ("time", "built", "reused"):
        table.add_column(heading, justify="right")
    table.add_column("checkpoint")
    for run in find_runs(config.runs):
        table.add_row(
            _short(run.folder),
            run.status,
            f"{run.seconds:.0f} s" if run.seconds else "",
            str(run.built),
            str(run.reused),
            _short(run.checkpoint) if run.checkpoint else "",
        )
    return table


def _artifacts(entries: list[Entry]) -> Table:
    by_kind: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_kind[f"{entry.kind}.{entry.output}"].append(entry)
    table = Table("artifacts", title="store", box=None, header_style="bold")
    for heading in ("number", "size", "last used"):
        table.add_column(heading, justify="right")
    for kind, group in sorted(by_kind.items(), key=lambda item: -sum(e.bytes for e in item[1])):
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(max(e.used for e in group)))
        table.add_row(kind, str(len(group)), size(sum(e.bytes for e in group)), used)
    return table


def _short(path: Path) -> str:
    """Relative to where the command runs, if it is below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
