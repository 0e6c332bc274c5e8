"""The jobs of a sweep folder as they lie there: records, results and configs put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.report.files import RESULT, read_config, read_result
from pipeline.runs import find_runs
from pipeline.sweeps.plan import SweepPlan, read_plan
from pipeline.sweeps.record import JobRecord, records


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One job. `status` is ok, failed, interrupted or missing; `started` is since the epoch."""

    number: int
    status: str
    overrides: tuple[str, ...]
    told_folder: str
    started: float = 0.0
    seconds: float = 0.0
    error: str | None = None
    result: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A sweep folder with its jobs by number; `seconds` from its start to its last job's end."""

    folder: Path
    plan: SweepPlan | None
    jobs: tuple[Job, ...]
    started: float
    seconds: float


def read_sweep(folder: Path) -> Sweep:
    """What is known of a sweep, or of all the runs below a folder that is none.

    Raises UserError where there is neither.
    """
    folder = folder.absolute()
    plan = read_plan(folder)
    found = {record.number: recorded(record, folder) for record in records(folder)}
    if plan is not None:
        for number in range(plan.count or 0):
            found.setdefault(number, missing(number, plan))
    elif not found:
        runs = [run.folder for run in find_runs([folder])] if folder.is_dir() else []
        found = {number: unrecorded(number, run, folder) for number, run in enumerate(runs)}
    if not found:
        raise UserError(
            f"there is no sweep and no run in {folder}",
            remedy="give the folder of a sweep: outputs/sweeps/DATE/TIME-ID",
        )
    jobs = tuple(found[number] for number in sorted(found))
    begun = [job for job in jobs if job.started]
    started = plan.started if plan else min((job.started for job in begun), default=0.0)
    ended = max((job.started + job.seconds for job in begun), default=started)
    return Sweep(folder=folder, plan=plan, jobs=jobs, started=started, seconds=ended - started)


def recorded(record: JobRecord, sweep: Path) -> Job:
    run = Path(record.folder)
    dead = record.status == "running"
    left = f"it began on {record.host} as process {record.pid} and left no result"
    return Job(
        number=record.number,
        status="missing" if dead else record.status,
        overrides=record.overrides,
        told_folder=told(run, sweep),
        started=record.started,
        seconds=record.seconds,
        error=left if dead else record.error,
        result=result_of(run),
        config=read_config(run) or None,
    )


def missing(number: int, plan: SweepPlan) -> Job:
    return Job(
        number=number,
        status="missing",
        overrides=plan.jobs[number] if number < len(plan.jobs) else (),
        told_folder="",
        error="it was never begun",
    )


def unrecorded(number: int, run: Path, folder: Path) -> Job:
    """A run that no sweep made, or one of an earlier version."""
    result = result_of(run)
    return Job(
        number=number,
        status=str(result["status"]) if result else "missing",
        overrides=(f"run={told(run, folder)}",),
        told_folder=told(run, folder),
        seconds=float(result["seconds"]) if result else 0.0,
        error=result["error"] if result else "it left no result",
        result=result,
        config=read_config(run) or None,
    )


def result_of(run: Path) -> dict[str, Any] | None:
    """result.json of a run folder, None where it was not written."""
    return read_result(run) if (run / RESULT).is_file() else None


def told(run: Path, sweep: Path) -> str:
    return str(run.relative_to(sweep)) if run.is_relative_to(sweep) else str(run)
