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
from pipeline.planning.expand import expand, never, towards
from pipeline.registry import Registry
from pipeline.report.units import counted
from pipeline.store import Store
from pipeline.sweeps.union import Union

CHECKED = ("run", "plan", "sensitivity")
"""Modes whose jobs are looked at: they have graphs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Impossible:
    """A job that cannot run, by its number and overrides, and why."""

    number: int
    words: tuple[str, ...]
    error: UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """The jobs that cannot run, and keys of the results that jobs do well to make for others."""

    impossible: tuple[Impossible, ...]
    shared: tuple[str, ...]


def check_jobs(given: PrimaryConfig, jobs: Sequence[Sequence[str]], cwd: Path) -> Checked:
    """Plan every job of `jobs`, each given by its overrides. Nothing is built.

    A GPU need not be here: the jobs may run elsewhere.
    """
    found: list[Impossible] = []
    registry, union = Registry.load(), Union()
    with given.initialized():
        for number, words in enumerate(jobs):
            try:
                _plan(given, words, registry, cwd, union)
            except UserError as error:
                found.append(Impossible(number=number, words=tuple(words), error=error))
            except (HydraException, OmegaConfBaseException) as error:
                told = explain(error, words, lambda kept: hydra.compose(given.name, list(kept)))
                found.append(Impossible(number=number, words=tuple(words), error=told))
    return Checked(impossible=tuple(found), shared=union.shared())


def _plan(
    given: PrimaryConfig, words: Sequence[str], registry: Registry, cwd: Path, union: Union
) -> None:
    cfg = hydra.compose(given.name, overrides=list(words))
    mode = cfg.get("mode", "run")
    if mode in CHECKED:
        cfg.mode = "plan"
    config = load_config(cfg, registry, overrides=words, cwd=cwd)
    sites = config.graph.sites
    if not sites:
        return
    store = Store(config.store)
    graph = expand(sites, mode="plan", find=store.get, build=never).graph
    for name, site in sites.items():
        if mode == "sensitivity" and site.stage.kind == mode:
            graph = towards(graph, name)
    union.add(graph, store, keep=config.store.keep_activations)


def told(found: Sequence[Impossible], count: int) -> UserError:
    """One error for all impossible jobs: what is the same in several is said once."""
    by_error: dict[str, list[Impossible]] = {}
    for each in found:
        by_error.setdefault(str(each.error), []).append(each)
    lines = list(_lines(by_error))
    every = len(found) == count
    return UserError(
        f"{len(found)} of {counted(count, 'job')} cannot run, so none was started:\n"
        + "\n".join(lines),
        remedy="" if every else "sweep.skip_invalid=true goes on with the others",
    )


def _lines(by_error: dict[str, list[Impossible]]) -> Iterator[str]:
    for error, jobs in by_error.items():
        numbers = ", ".join(str(job.number) for job in jobs)
        indented = error.replace("\n", "\n  ")
        yield f"  {'job' if len(jobs) == 1 else 'jobs'} {numbers}: {indented}"
