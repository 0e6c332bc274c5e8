"""Plan of a sweep: folder, jobs and objective, known before it starts and kept with its jobs."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from pipeline.errors import UserError
from pipeline.report.section import example
from pipeline.sweeps.files import JOBS, PLAN, read_json, write_json

BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
OWN_OUTPUT = ("basic_launcher", "joblib", "ray")
"""Substrings of the classes of launchers whose jobs write to this terminal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPlan:
    """A sweep in `folder`, an absolute path.

    `jobs` are the overrides of each job, if they are known beforehand (the basic sweeper); `count`
    is the number of jobs, None if only the sweeper knows it. `objective` are the dotted paths into
    result.json that the jobs return, `directions` are `minimize` or `maximize` for each. `shared`
    are keys of results that some jobs need and others can make in passing (pipeline.sweeps.union).
    """

    folder: Path
    command: str
    sweeper: str
    launcher: str
    started: float
    jobs: tuple[tuple[str, ...], ...] = ()
    count: int | None = None
    objective: tuple[str, ...] = ()
    directions: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    @property
    def silent(self) -> bool:
        """Whether the jobs' messages go elsewhere, to the log files of a cluster."""
        return not any(name in self.launcher for name in OWN_OUTPUT)

    def write(self) -> None:
        """Clear the sweep's records and write the plan. Raises OSError if that fails."""
        for path in (self.folder / JOBS).glob("*.json"):
            path.unlink()
        content = {**dataclasses.asdict(self), "folder": str(self.folder)}
        write_json(self.folder / PLAN, content)


def planned(cfg: DictConfig, command: str, cwd: Path) -> SweepPlan:
    """The sweep that a composed config (with its `hydra` section) defines.

    Raises UserError if the sweeper needs an objective and there is none.
    """
    sweeper = str(cfg.hydra.sweeper.get("_target_", ""))
    objective = texts(cfg.get("objective"))
    basic = sweeper == BASIC
    if not basic and not objective:
        raise UserError(
            f"hydra/sweeper={cfg.hydra.runtime.choices['hydra/sweeper']} needs an objective",
            remedy=f"name a number of result.json: objective={example()}",
        )
    jobs = combinations(cfg) if basic else ()
    trials = cfg.hydra.sweeper.get("n_trials")
    return SweepPlan(
        folder=(cwd / Path(str(cfg.hydra.sweep.dir)).expanduser()).absolute(),
        command=command,
        sweeper=sweeper,
        launcher=str(cfg.hydra.launcher.get("_target_", "")),
        started=round(time.time(), 3),
        jobs=jobs,
        count=len(jobs) if basic else None if trials is None else int(trials),
        objective=objective,
        directions=tuple(
            text.rpartition(".")[2] for text in texts(cfg.hydra.sweeper.get("direction"))
        ),
    )


def combinations(cfg: DictConfig) -> tuple[tuple[str, ...], ...]:
    """The overrides of every job of the basic sweeper, in its order."""
    given = [f"{key}={value}" for key, value in (cfg.hydra.sweeper.get("params") or {}).items()]
    given += cast(list[str], OmegaConf.to_container(cfg.hydra.overrides.task, resolve=False))
    choices: dict[str, list[str]] = {}
    for override in OverridesParser.create().parse_overrides(given):
        key = override.get_key_element()
        if override.is_sweep_override():
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            choices[key] = [f"{key}={override.get_value_element_as_str()}"]
    return tuple(itertools.product(*choices.values()))


def read_plan(folder: Path) -> SweepPlan | None:
    """The plan of a sweep folder, or None if it has none."""
    content = read_json(folder / PLAN)
    if content is None:
        return None
    known = {field.name for field in dataclasses.fields(SweepPlan)}
    given: dict[str, Any] = {name: value for name, value in content.items() if name in known}
    lists = {name: tuple(given.get(name, ())) for name in ("objective", "directions", "shared")}
    jobs = tuple(tuple(job) for job in given.get("jobs", ()))
    return SweepPlan(**{**given, **lists, "jobs": jobs, "folder": folder})


def texts(value: object) -> tuple[str, ...]:
    """A string or a list of strings of a config as a tuple; empty for null."""
    if value is None:
        return ()
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    items: Sequence[object] = plain if isinstance(plain, list) else [plain]
    return tuple(str(getattr(item, "name", item)) for item in items)
