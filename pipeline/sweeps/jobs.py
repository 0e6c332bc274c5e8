"""Jobs of a sweep: their records, results and configs, read and written."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pipeline.errors import UserError
from pipeline.report.files import REPORT, RESULT, read_config, read_result
from pipeline.run_folders import find_runs
from pipeline.sweeps.files import JOBS, read_json, write_json
from pipeline.sweeps.plan import SweepPlan, read_plan

JobStatus = Literal["running", "ok", "failed", "interrupted"]
STATUSES = ("running", "ok", "failed", "interrupted")


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRecord:
    """Job `number` of a sweep; `overrides` are those of this job, `folder` is its run folder.

    A record that stays `running` after the sweep is of a job whose process died. `started` is
    seconds since the epoch.
    """

    number: int
    overrides: tuple[str, ...]
    folder: str
    status: JobStatus
    started: float
    seconds: float = 0.0
    error: str | None = None
    host: str = ""
    pid: int = 0

    def write(self, sweep: Path) -> None:
        write_json(sweep / JOBS / f"{self.number}.json", dataclasses.asdict(self))

    def ended(self, sweep: Path, status: JobStatus, error: str | None = None) -> None:
        """Write how it ended."""
        spent = round(time.time() - self.started, 3)
        dataclasses.replace(self, status=status, seconds=spent, error=error).write(sweep)


def begin(sweep: Path, number: int, overrides: Sequence[str], folder: Path) -> JobRecord:
    """Write that a job begins here and now; what an earlier sweep left in `folder` is not its."""
    for name in (RESULT, REPORT):
        (folder / name).unlink(missing_ok=True)
    record = JobRecord(
        number=number,
        overrides=tuple(overrides),
        folder=str(folder),
        status="running",
        started=round(time.time(), 3),
        host=socket.gethostname(),
        pid=os.getpid(),
    )
    record.write(sweep)
    return record


def records(sweep: Path) -> Iterator[JobRecord]:
    """The records of a sweep folder by number; what is no record is passed over."""
    numbered = [path for path in (sweep / JOBS).glob("*.json") if path.stem.isdigit()]
    for path in sorted(numbered, key=lambda path: int(path.stem)):
        content = read_json(path)
        if content is None or content.get("status") not in STATUSES:
            continue
        yield JobRecord(
            number=int(path.stem),
            overrides=tuple(map(str, content.get("overrides", ()))),
            folder=str(content.get("folder", "")),
            status=cast(JobStatus, content["status"]),
            started=float(content.get("started") or 0.0),
            seconds=float(content.get("seconds") or 0.0),
            error=content.get("error"),
            host=str(content.get("host", "")),
            pid=int(content.get("pid") or 0),
        )


def enter(cwd: Path) -> None:
    """Make relative paths of the config mean what they mean where the sweep was started.

    Raises UserError on a machine that does not have that folder.
    """
    try:
        os.chdir(cwd)
    except OSError as error:
        raise UserError(
            f"the folder that the sweep was started in is not on {socket.gethostname()}: {cwd}",
            remedy="start it in a folder that all machines of the cluster share",
        ) from error


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
