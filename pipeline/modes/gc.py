"""`mode=gc`: garbage collection of the store; artifacts of live runs are kept."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.config.root import Config
from pipeline.errors import UserError
from pipeline.report.units import counted, size
from pipeline.runs.folders import known_runs
from pipeline.store import Store, collect
from pipeline.store.noted_runs import noted_runs


def gc(config: Config, run_dir: Path) -> int:
    """Free artifacts by the rules of `gc`, or only list them (`gc.dry_run`, the default)."""
    del run_dir
    rules = config.gc
    limit = config.store.max_bytes if rules.max_bytes is None else rules.max_bytes
    if rules.max_age_days is None and limit is None and not rules.unreferenced:
        raise UserError(
            "mode=gc is told nothing to free",
            remedy="give gc.max_age_days=DAYS, gc.max_bytes=BYTES or gc.unreferenced=true",
        )
    store = Store(config.store)
    referenced = None
    if rules.unreferenced:
        referenced = {key for run in known_runs(config.runs, store.layout) for key in run.keys}
    report = collect(
        store,
        max_age_days=rules.max_age_days,
        max_bytes=rules.max_bytes,
        referenced=referenced,
        dry_run=rules.dry_run,
    )
    console = Console(highlight=False)
    table = Table("node", "output", "key", box=None, header_style="bold")
    table.add_column("size", justify="right")
    for entry in report.entries:
        table.add_row(entry.node, entry.output, entry.key[:12], size(entry.bytes))
    if report.entries:
        console.print(table)
    verb = "would be freed" if report.dry_run else "freed"
    console.print(
        f"{counted(len(report.entries), 'artifact')}, {size(report.freed)} {verb}; "
        f"{size(report.kept)} kept"
    )
    gone = noted_runs(store.layout)[1] if rules.unreferenced else 0
    if gone:
        be = "was removed, or is" if gone == 1 else "were removed, or are"
        console.print(
            f"note: {counted(gone, 'run folder')} {be} not to be seen from here: nothing counts as "
            "referred to by such"
        )
    if report.dry_run and report.entries:
        console.print("gc.dry_run=false does it")
    return 0
