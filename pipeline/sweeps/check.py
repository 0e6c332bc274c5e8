"""Check of all jobs of a sweep before the first one starts, as `mode=plan` checks one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.hydra_errors import explain
from pipeline.config.primary import PrimaryConfig
from pipeline.config.root import load_config
from pipeline.errors import UserError
from pipeline.planning.expand import expand, never
from pipeline.registry import Registry
from pipeline.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Impossible:
    """A job that cannot run, by its number and overrides, and why."""

    number: int
    words: tuple[str, ...]
    error: UserError


def impossible(
    given: PrimaryConfig, jobs: Sequence[Sequence[str]], cwd: Path
) -> tuple[Impossible, ...]:
    """The jobs of `jobs`, each by its overrides, that cannot run. Nothing is built.

    A GPU need not be here: the jobs may run elsewhere.
    """
    found: list[Impossible] = []
    registry = Registry.load()
    with given.initialized():
        for number, words in enumerate(jobs):
            try:
                _planned(given, words, registry, cwd)
            except UserError as error:
                found.append(Impossible(number=number, words=tuple(words), error=error))
            except (HydraException, OmegaConfBaseException) as error:
                told = explain(error, words, lambda kept: hydra.compose(given.name, list(kept)))
                found.append(Impossible(number=number, words=tuple(words), error=told))
    return tuple(found)


def _planned(given: PrimaryConfig, words: Sequence[str], registry: Registry, cwd: Path) -> None:
    cfg = hydra.compose(given.name, overrides=list(words))
    if cfg.get("mode", "run") == "run":
        cfg.mode = "plan"
    config = load_config(cfg, registry, overrides=words, cwd=cwd)
    if config.graph.sites:
        store = Store(config.store)
        expand(config.graph.sites, mode="plan", find=store.get, build=never)


def told(found: Sequence[Impossible], count: int) -> UserError:
    """One error for all impossible jobs: what is the same in several is said once."""
    by_error: dict[str, list[Impossible]] = {}
    for each in found:
        by_error.setdefault(str(each.error), []).append(each)
    lines = list(_lines(by_error))
    every = len(found) == count
    return UserError(
        f"{len(found)} of {count} jobs cannot run, so none was started:\n" + "\n".join(lines),
        remedy="" if every else "sweep.skip_invalid=true goes on with the others",
    )


def _lines(by_error: dict[str, list[Impossible]]) -> Iterator[str]:
    for error, jobs in by_error.items():
        numbers = ", ".join(str(job.number) for job in jobs)
        plural = "s" if len(jobs) > 1 else ""
        indented = error.replace("\n", "\n  ")
        yield f"  job{plural} {numbers}: {indented}"
