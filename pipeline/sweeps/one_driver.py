"""One driver for all jobs of a sweep: it builds what they need before each of them runs.

The graphs of all jobs become one (`pipeline.sweeps.merged`), which the workers of `runner` build:
what several jobs need is built once, and no worker is idle while any job has work. Then each job
runs as it would alone, finds its results in the store, and writes its checkpoint and reports.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.primary import PrimaryConfig
from pipeline.config.root import Config, load_config
from pipeline.errors import UserError
from pipeline.messages import message
from pipeline.planning.expand import expand
from pipeline.registry import Registry
from pipeline.report.progress import progress
from pipeline.runner.local import LocalRunner
from pipeline.runner.preflight import check_device, check_room
from pipeline.runner.schedule import before_sending
from pipeline.runner.workers.chosen import crews_of
from pipeline.store import Store
from pipeline.sweeps.merged import merged

log = logging.getLogger(__name__)

LAUNCHER = "presswork_ray"
"""The choice of `hydra/launcher` that stands for one driver: its jobs run as Hydra's basic ones."""


@contextmanager
def together(
    given: PrimaryConfig, composed: Any, jobs: Sequence[Sequence[str]], cwd: Path
) -> Iterator[None]:
    """Context in which Hydra runs the jobs of a sweep, built before if its launcher is LAUNCHER.

    `composed` is the config common to all, `jobs` are the overrides of each, where they are known.
    """
    if composed.hydra.runtime.choices.get("hydra/launcher") != LAUNCHER:
        yield
        return
    with built(_configs(given, jobs, cwd)):
        yield


def _configs(given: PrimaryConfig, jobs: Sequence[Sequence[str]], cwd: Path) -> list[Config]:
    """Configs of the jobs that build something; one that cannot run tells so itself."""
    found, registry = [], Registry.load()
    with given.initialized():
        for words in jobs:
            try:
                cfg = hydra.compose(given.name, overrides=list(words))
                config = load_config(cfg, registry, overrides=words, cwd=cwd)
            except (UserError, HydraException, OmegaConfBaseException) as error:
                log.info("%s: not built with the others: %s", " ".join(words), error)
                continue
            if config.mode == "run":
                found.append(config)
    return found


@contextmanager
def built(jobs: Sequence[Config]) -> Iterator[None]:
    """Context in which the store has what the jobs need, as far as one driver could build it.

    Jobs with another store or other workers than the first build their own. What goes wrong here is
    for the job that it is part of to tell; it is only said that the others go on alone.
    """
    alike = [job for job in jobs if _place(job) == _place(jobs[0])]
    if len(alike) < 2:
        yield
        return
    first, watcher = alike[0], progress()
    store = Store(first.store, warn=watcher.message)
    runner = LocalRunner(
        store,
        workers=first.runner.workers,
        keep_transient=first.store.keep_activations,
        watcher=watcher,
        crews=crews_of(first.runner, first.device),
    )
    with runner.leased():  # nothing is freed before its job has read it
        try:
            _build(runner, alike)
        except UserError as error:
            log.info("not all is built by one driver: %s", error)
            message(f"note: the jobs go on one by one: {error.what}")
        finally:
            watcher.stop()
        yield


def _build(runner: LocalRunner, jobs: Sequence[Config]) -> None:
    found = [
        expand(job.graph.sites, mode="run", find=runner.find, build=runner.result) for job in jobs
    ]
    graph = merged([before_sending(each.graph) for each in found])  # each job sends its own
    plan, transient = runner.planned(graph), runner.transient(graph)
    check_device(plan, jobs[0].device, transient)
    check_room(plan, transient, runner.store.free_bytes(), str(runner.store.root))
    message(f"{len(jobs)} jobs as one: {len(plan.building())} nodes to run")
    runner.run(graph)


def _place(job: Config) -> Any:
    """What jobs of one driver have in common."""
    return job.store, job.runner, job.device
