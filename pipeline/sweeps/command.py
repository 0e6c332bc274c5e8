"""Multirun on the command line: composition, progress of the jobs, and the final report."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from pipeline.report.units import duration
from pipeline.sweeps.jobs import JobRecord, records
from pipeline.sweeps.page import write_sweep
from pipeline.sweeps.plan import SweepPlan
from pipeline.sweeps.summary import print_summary

Tell = Callable[[str], None]


@contextmanager
def following(sweep: Path, tell: Tell, *, interval: float = 2.0) -> Iterator[None]:
    """Report each job that ended, polling the records every `interval` seconds."""
    stop, reported = threading.Event(), set[int]()

    def poll() -> None:
        for record in records(sweep):
            if record.status != "running" and record.number not in reported:
                reported.add(record.number)
                tell(line(record))

    def watch() -> None:
        while not stop.wait(interval):
            poll()

    thread = threading.Thread(target=watch, name="follow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        poll()


def line(record: JobRecord) -> str:
    """One line on a job that ended."""
    if record.status == "ok":
        return f"job {record.number}: done in {duration(record.seconds)}"
    reason = record.error or record.status
    return f"job {record.number}: {record.status} on {record.host}: {reason}"


def composed(name: str, overrides: Sequence[str]) -> DictConfig:
    """The config common to all jobs, with its section `hydra`. Hydra must be initialized.

    Overrides with several values are left to the sweeper.
    """
    started = GlobalHydra.instance().hydra
    if started is None:
        raise RuntimeError("Hydra is not initialized")
    return started.compose_config(
        config_name=name,
        overrides=list(overrides),
        run_mode=RunMode.MULTIRUN,
        from_shell=False,
        with_log_configuration=False,
    )


def folder_override(plan: SweepPlan) -> str:
    """The override that gives every job, on any machine, the sweep's folder."""
    escaped = str(plan.folder).replace("\\", "\\\\").replace("'", "\\'")
    return f"hydra.sweep.dir='{escaped}'"


@contextmanager
def launched(plan: SweepPlan, tell: Tell) -> Iterator[None]:
    """Context in which Hydra runs the jobs: the plan is written, and silent jobs are reported."""
    plan.write()
    with ExitStack() as stack:
        if plan.silent:
            stack.enter_context(following(plan.folder, tell))
        yield


def finish(plan: SweepPlan) -> int:
    """Write sweep.json and sweep.html, print the summary; exit code 1 unless all jobs are done.

    A sweep of which no job started leaves no files.
    """
    if not any(records(plan.folder)):
        return 1
    sweep = write_sweep(plan.folder)
    print_summary(sweep, plan.folder, Console(highlight=False))
    return 0 if sweep["status"] == "ok" else 1
