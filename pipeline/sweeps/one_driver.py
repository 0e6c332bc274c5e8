"""Launcher of sweeps (`hydra/launcher=presswork_ray`): one driver builds what all jobs need.

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

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from pipeline.config.root import Config, load_config
from pipeline.errors import UserError
from pipeline.messages import message
from pipeline.planning.expand import expand
from pipeline.registry import Registry
from pipeline.report.progress import progress
from pipeline.runner.local import LocalRunner
from pipeline.runner.preflight import check_device, check_room
from pipeline.runner.workers.chosen import crews_of
from pipeline.store import Store
from pipeline.sweeps.merged import merged

log = logging.getLogger(__name__)


class OneDriver(Launcher):
    """Builds what all jobs need, then launches them one after the other."""

    def __init__(self) -> None:
        self._each = BasicLauncher()
        self._context: HydraContext | None = None
        self._config: DictConfig | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self._context, self._config = hydra_context, config
        self._each.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        with _built(self._jobs(job_overrides)):
            return self._each.launch(job_overrides, initial_job_idx)

    def _jobs(self, job_overrides: Sequence[Sequence[str]]) -> list[Config]:
        """Configs of the jobs that build something; one that cannot run tells so itself."""
        if self._context is None or self._config is None:
            raise RuntimeError("Hydra sets a launcher up before it launches")
        found, registry = [], Registry.load()
        for words in job_overrides:
            loader = self._context.config_loader
            cfg = loader.load_sweep_config(self._config, list(words))
            with open_dict(cfg):
                del cfg["hydra"]
            try:
                config = load_config(cfg, registry, overrides=words, cwd=Path.cwd())
            except UserError as error:
                log.info("%s: not built with the others: %s", " ".join(words), error)
                continue
            if config.mode == "run":
                found.append(config)
        return found


@contextmanager
def _built(jobs: Sequence[Config]) -> Iterator[None]:
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
    graphs = [
        expand(job.graph.sites, mode="run", find=runner.find, build=runner.result).graph
        for job in jobs
    ]
    graph = merged(graphs)
    plan, transient = runner.planned(graph), runner.transient(graph)
    check_device(plan, jobs[0].device, transient)
    check_room(plan, transient, runner.store.free_bytes(), str(runner.store.root))
    message(f"{len(jobs)} jobs as one: {len(plan.building())} nodes to run")
    runner.run(graph)


def _place(job: Config) -> Any:
    """What jobs of one driver have in common."""
    return job.store, job.runner, job.device


def register_launcher() -> None:
    """Have Hydra know the launcher, by a name that `conf/hydra/launcher` refers to."""
    Plugins.instance().register(OneDriver)
    name = f"{OneDriver.__module__}.{OneDriver.__qualname__}"
    ConfigStore.instance().store(
        group="hydra/launcher", name="one_driver", node={"_target_": name}, provider="presswork"
    )
