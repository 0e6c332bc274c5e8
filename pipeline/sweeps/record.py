"""What became of one job, told by the process that ran it, wherever that was."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from pipeline.errors import UserError
from pipeline.report.files import REPORT, RESULT
from pipeline.sweeps.files import JOBS, read_json, write_json

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
