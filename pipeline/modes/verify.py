"""`mode=verify`: hash every file of the store; what is damaged is put aside and built again."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from pipeline.config import Config
from pipeline.store import Store


def verify(config: Config, run_dir: Path) -> int:
    """Print what is damaged; exit code 1 if anything is, else 0."""
    del run_dir
    console = Console(highlight=False)
    store = Store(config.store)
    seen = 0
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("hashing")

        def told(done: int, total: int) -> None:
            nonlocal seen
            seen = total
            progress.update(task, completed=done, total=total)

        findings = store.verify(progress=told)
    for finding in findings:
        aside = " (put aside, the next run builds it again)" if finding.repaired else ""
        console.print(f"{finding.node} {finding.key[:12]}: {finding.problem}{aside}", markup=False)
    good = seen - len({finding.key for finding in findings})
    console.print(f"{good} of {seen} artifacts in {store.root} are whole")
    return 1 if findings else 0
