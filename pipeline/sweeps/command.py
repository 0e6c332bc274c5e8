"""A sweep on the command line: what surrounds Hydra's own multirun."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from pipeline.sweeps.follow import Tell, following
from pipeline.sweeps.plan import SweepPlan
from pipeline.sweeps.record import records
from pipeline.sweeps.summary import print_summary
from pipeline.sweeps.write import write_sweep

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
