"""Config of a call from Python, composed as the command line does; Hydra's state is put back."""

from __future__ import annotations

import secrets
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.checked_loader import checked
from pipeline.config.hydra_errors import explain
from pipeline.config.primary import PrimaryConfig
from pipeline.config.recipe_import import Imported, imported, unfit
from pipeline.config.searchpath import own_configs, register
from pipeline.errors import UserError
from pipeline.machine.variables import variables
from pipeline.registry import Registry

if TYPE_CHECKING:
    from pipeline.config.root import Config

RUN_ID = "PRESSWORK_RUN_ID"
"""Set for each command and call: two in the same second get different run folders."""

_COMPOSING = threading.Lock()


COMPOSITION = (HydraException, OmegaConfBaseException, UserWarning)
"""What Hydra raises for configs that cannot be composed, in `strict_search_path`."""


def run_id() -> dict[str, str]:
    """The variable by which the folder of a run differs from others of the same second."""
    return {RUN_ID: secrets.token_hex(3)}


@contextmanager
def strict_search_path() -> Iterator[None]:
    """Context in which a folder of hydra.searchpath that is not there is an error, no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", r"provider=.*is not available", UserWarning)
        yield


def composition_error(error: Exception, given: PrimaryConfig, recipe: Imported) -> UserError:
    """The message for one of `COMPOSITION`; `given` has the recipe's overrides as well."""
    if isinstance(error, UserWarning):
        return UserError(f"hydra.searchpath: {error}")
    return unfit(error, recipe) or explain(error, given.overrides, given.compose)


@dataclass(frozen=True, kw_only=True, slots=True)
class Called:
    """The config of a call, the run folder that it names, and notes on a translated recipe."""

    config: Config
    run_dir: Path
    notes: tuple[str, ...]


def called(overrides: Sequence[str], *, config_dir: Path | None = None) -> Called:
    """Compose and load the config of these overrides, also where Hydra is in use already.

    `config_dir` is one more folder of configs, as --config-dir names it. One thread composes at a
    time. Raises UserError or ManyErrors for what is wrong with them.
    """
    given = PrimaryConfig(
        folder=own_configs(), name="config", overrides=tuple(overrides), extra=config_dir
    )
    with _COMPOSING, _own_state(), variables(run_id()), checked(), strict_search_path():
        register()
        recipe = imported(given.overrides, Registry.load)
        given = replace(given, overrides=(*recipe.overrides, *given.overrides))
        try:
            return _loaded(given, recipe)
        except COMPOSITION as error:
            raise composition_error(error, given, recipe) from error


def _loaded(given: PrimaryConfig, recipe: Imported) -> Called:
    from pipeline.config.root import load_config  # the command line needs the errors of here alone

    with given.initialized():
        cfg = hydra.compose(given.name, overrides=list(given.overrides), return_hydra_config=True)
        folder, experiment = str(cfg.hydra.run.dir), cfg.hydra.runtime.choices.get("experiment")
        config = load_config(
            _without_hydra(cfg),
            Registry.load(),
            overrides=given.overrides,
            cwd=Path.cwd(),
            experiment=None if experiment is None else str(experiment),
        )
    return Called(config=config, run_dir=Path.cwd() / folder, notes=recipe.notes)


def _without_hydra(cfg: DictConfig) -> DictConfig:
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


@contextmanager
def _own_state() -> Iterator[None]:
    """Context in which Hydra is as in a fresh process, for a program that uses it itself."""
    instance, settings = GlobalHydra.instance(), HydraConfig.instance()
    before, chosen = instance.hydra, settings.cfg
    instance.clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = before
        HydraConfig.instance().cfg = chosen
