"""`mode=verify`: hash every file of the store, or check one checkpoint of any origin."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from pipeline.config.root import Config
from pipeline.masking import printable
from pipeline.registry import Registry
from pipeline.report.units import counted
from pipeline.store import Store

MARKS = {True: "ok", False: "WRONG", None: "not checked"}


def verify(config: Config, run_dir: Path) -> int:
    """Check the store, or `checkpoint=DIR`; exit code 1 if anything is wrong, else 0."""
    del run_dir
    console = Console(highlight=False)
    if config.checkpoints:
        return _checkpoint(config.checkpoints[0], console)
    return _store(Store(config.store), console)


def _checkpoint(folder: Path, console: Console) -> int:
    inspect = Registry.load().get("inspector", "checkpoint")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("checking", total=1.0)

        def report_progress(done: float, what: str) -> None:
            progress.update(task, completed=done, description=what)

        report = inspect(folder, report_progress)
    for check in report["checks"]:
        detail = f": {printable(check['detail'])}" if check["detail"] else ""
        console.print(f"{MARKS[check['ok']]:12}{check['name']}{detail}", markup=False)
    wrong = sum(check["ok"] is False for check in report["checks"])
    verdict = f"{counted(wrong, 'check')} failed" if wrong else "nothing wrong was found"
    console.print(f"{folder}: {verdict}", markup=False)
    return 1 if wrong else 0


def _store(store: Store, console: Console) -> int:
    """Check the whole store; damaged artifacts are quarantined and built again by the next run."""
    seen = 0
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("hashing")

        def report_progress(done: int, total: int) -> None:
            nonlocal seen
            seen = total
            progress.update(task, completed=done, total=total)

        findings = store.verify(progress=report_progress)
    for finding in findings:
        aside = " (put aside, the next run builds it again)" if finding.repaired else ""
        console.print(f"{finding.node} {finding.key[:12]}: {finding.problem}{aside}", markup=False)
    good = seen - len({finding.key for finding in findings})
    be = "is" if seen == 1 else "are"
    console.print(f"{good} of {counted(seen, 'artifact')} in {store.root} {be} whole")
    return 1 if findings else 0
