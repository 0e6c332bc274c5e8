"""A multirun on the command line: before, during and after Hydra's own loop."""

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
    """Tell of each job that ended, looking into the records every `interval` seconds."""
    stop, told = threading.Event(), set[int]()

    def look() -> None:
        for record in records(sweep):
            if record.status != "running" and record.number not in told:
                told.add(record.number)
                tell(line(record))

    def watch() -> None:
        while not stop.wait(interval):
            look()

    thread = threading.Thread(target=watch, name="follow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        look()


def line(record: JobRecord) -> str:
    if record.status == "ok":
        return f"job {record.number}: done in {duration(record.seconds)}"
    reason = record.error or record.status
    return f"job {record.number}: {record.status} on {record.host}: {reason}"


FLAGS = ("-m", "--multirun", "hydra.mode=MULTIRUN")


def asked(words: Sequence[str]) -> bool:
    """Whether a command line starts a sweep (and does not only print something)."""
    prints = ("-c", "--cfg", "-i", "--info", "-h", "--help", "--hydra-help", "-sc")
    return any(word in FLAGS for word in words) and not any(
        word.partition("=")[0] in prints for word in words
    )


def composed(name: str, overrides: Sequence[str]) -> DictConfig:
    """The config that all jobs start from, with its section `hydra`; Hydra is initialized.

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
    """What tells every job, on any machine, where the sweep's folder is."""
    escaped = str(plan.folder).replace("\\", "\\\\").replace("'", "\\'")
    return f"hydra.sweep.dir='{escaped}'"


@contextmanager
def launched(plan: SweepPlan, tell: Tell) -> Iterator[None]:
    """The time in which Hydra runs the jobs."""
    plan.write()
    with ExitStack() as stack:
        if plan.silent:
            stack.enter_context(following(plan.folder, tell))
        yield


def finish(plan: SweepPlan) -> int:
    """Leave sweep.json and sweep.html, tell the result; exit code 1 unless all jobs are done.

    A sweep of which no job began leaves nothing.
    """
    if not any(records(plan.folder)):
        return 1
    sweep = write_sweep(plan.folder)
    print_summary(sweep, plan.folder, Console(highlight=False))
    return 0 if sweep["status"] == "ok" else 1
