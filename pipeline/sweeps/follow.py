"""Telling how the jobs of a sweep end while they run where nobody sees them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.report.units import duration
from pipeline.sweeps.record import JobRecord, records

Tell = Callable[[str], None]


@contextmanager
def following(sweep: Path, tell: Tell, *, interval: float = 2.0) -> Iterator[None]:
    """Tell of each job that ended, looking into the records every `interval` seconds."""
    stop, told = threading.Event(), set[int]()

    def look() -> None:
        for record in records(sweep):
            if record.status != "running" and record.number not in told:
                told.add(record.number)
                tell(line(record))

    def watch() -> None:
        while not stop.wait(interval):
            look()

    thread = threading.Thread(target=watch, name="follow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        look()


def line(record: JobRecord) -> str:
    if record.status == "ok":
        return f"job {record.number}: done in {duration(record.seconds)}"
    reason = record.error or record.status
    return f"job {record.number}: {record.status} on {record.host}: {reason}"
