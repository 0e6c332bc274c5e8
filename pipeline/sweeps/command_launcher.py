"""Launcher of sweeps (`hydra/launcher=presswork_ray`): one driver builds what all jobs need."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from pipeline.config.root import Config, load_config
from pipeline.errors import UserError
from pipeline.registry import Registry
from pipeline.sweeps.one_driver import built

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
        with built(self._jobs(job_overrides)):
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


def register_launcher() -> None:
    """Have Hydra know the launcher, by a name that `conf/hydra/launcher` refers to."""
    Plugins.instance().register(OneDriver)
    name = f"{OneDriver.__module__}.{OneDriver.__qualname__}"
    ConfigStore.instance().store(
        group="hydra/launcher", name="one_driver", node={"_target_": name}, provider="presswork"
    )
