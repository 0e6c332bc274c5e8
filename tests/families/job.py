"""One job of the pipeline in this process, with a config that is composed once for each scheme."""

from __future__ import annotations

import functools
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.modes.run import run
from pipeline.registry import Registry
from tests.families.schemes import SCHEMES
from tests.pipeline.tiny import composed

COMMON = (
    *("device=cpu", "runner.threads=1", "model=local", "dataset=text", "eval=none"),
    *("dataset.num_samples=6", "dataset.sequence_length=64", "calibrate.batch_size=2"),
)


def run_job(scheme: str, model: Path, text: Path, target: Path, more: tuple[str, ...] = ()) -> None:
    """Compress a model folder under a scheme; `target` becomes the run folder, beside its store.

    `more` are overrides beside the scheme's own.
    """
    cfg = _composed(scheme, more)
    places = {"model.path": model, "dataset.path": text, "store.dir": target.parent / "store"}
    for key, place in places.items():
        OmegaConf.update(cfg, key, str(place))
    target.mkdir(exist_ok=True)
    given = [*_overrides(scheme), *more, *(f"{key}={place}" for key, place in places.items())]
    run(load_config(cfg, Registry.load(), overrides=given), target)


@functools.cache
def _composed(scheme: str, more: tuple[str, ...]) -> DictConfig:
    """Composing takes a third of a tiny job's time, and only places differ between models."""
    paths = [f"{key}=elsewhere" for key in ("model.path", "dataset.path", "store.dir")]
    return composed(own_configs(), *_overrides(scheme), *more, *paths, name="config")


def _overrides(scheme: str) -> list[str]:
    return [*COMMON, *SCHEMES[scheme].overrides]
