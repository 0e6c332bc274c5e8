"""Jobs of a sweep: reading and writing their records, results and configs."""

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
from pipeline.runs.folders import find_runs
from pipeline.sweeps.files import JOBS, read_json, write_json
from pipeline.sweeps.plan import SweepPlan, read_plan

JobStatus = Literal["running", "ok", "failed", "interrupted"]
STATUSES = ("running", "ok", "failed", "interrupted")


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRecord:
    """The record of job `number`: its overrides, its run folder, its status.

    If it is still `running` after the sweep, the job's process died. `started` is in seconds since
    the epoch.
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
        """Write the record with its final status."""
        elapsed = round(time.time() - self.started, 3)
        dataclasses.replace(self, status=status, seconds=elapsed, error=error).write(sweep)


def begin(sweep: Path, number: int, overrides: Sequence[str], folder: Path) -> JobRecord:
    """Write the record of a job that starts now; results of an earlier sweep are removed."""
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
    """The records of a sweep folder by number; other files are skipped."""
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
    """Change to the folder that the sweep was started in, as the base of relative paths.

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
    """One job. `status` is ok, failed, interrupted or missing, `started` in epoch seconds."""

    number: int
    status: str
    overrides: tuple[str, ...]
    shown_folder: str
    started: float = 0.0
    seconds: float = 0.0
    error: str | None = None
    result: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A sweep folder and its jobs by number; `seconds` until the last job's end."""

    folder: Path
    plan: SweepPlan | None
    jobs: tuple[Job, ...]
    started: float
    seconds: float


def read_sweep(folder: Path) -> Sweep:
    """Read a sweep folder, or all runs below a folder that is none, as a sweep.

    Raises UserError if it has neither.
    """
    folder = folder.absolute()
    plan = read_plan(folder)
    by_number = {record.number: recorded(record, folder) for record in records(folder)}
    if plan is not None:
        for number in range(plan.count or 0):
            by_number.setdefault(number, missing(number, plan))
    elif not by_number:
        runs = [run.folder for run in find_runs([folder])] if folder.is_dir() else []
        by_number = {number: unrecorded(number, run, folder) for number, run in enumerate(runs)}
    if not by_number:
        raise UserError(
            f"there is no sweep and no run in {folder}",
            remedy="give the folder of a sweep: outputs/sweeps/DATE/TIME-ID",
        )
    jobs = tuple(by_number[number] for number in sorted(by_number))
    begun = [job for job in jobs if job.started]
    started = plan.started if plan else min((job.started for job in begun), default=0.0)
    ended = max((job.started + job.seconds for job in begun), default=started)
    return Sweep(folder=folder, plan=plan, jobs=jobs, started=started, seconds=ended - started)


def recorded(record: JobRecord, sweep: Path) -> Job:
    """The job of a record, with its result and config."""
    run = Path(record.folder)
    dead = record.status == "running"
    reason = f"it began on {record.host} as process {record.pid} and left no result"
    return Job(
        number=record.number,
        status="missing" if dead else record.status,
        overrides=record.overrides,
        shown_folder=relative(run, sweep),
        started=record.started,
        seconds=record.seconds,
        error=reason if dead else record.error,
        result=result_of(run),
        config=read_config(run) or None,
    )


def missing(number: int, plan: SweepPlan) -> Job:
    """A job that was planned and never started."""
    return Job(
        number=number,
        status="missing",
        overrides=plan.jobs[number] if number < len(plan.jobs) else (),
        shown_folder="",
        error="it was never begun",
    )


def unrecorded(number: int, run: Path, folder: Path) -> Job:
    """A run without a record: of no sweep, or of an earlier version."""
    result = result_of(run)
    return Job(
        number=number,
        status=str(result["status"]) if result else "missing",
        overrides=(f"run={relative(run, folder)}",),
        shown_folder=relative(run, folder),
        seconds=float(result["seconds"]) if result else 0.0,
        error=result["error"] if result else "it left no result",
        result=result,
        config=read_config(run) or None,
    )


def result_of(run: Path) -> dict[str, Any] | None:
    """result.json of a run folder, None if it was not written."""
    return read_result(run) if (run / RESULT).is_file() else None


def relative(run: Path, sweep: Path) -> str:
    """A run folder relative to the sweep's, if it is below it."""
    return str(run.relative_to(sweep)) if run.is_relative_to(sweep) else str(run)
