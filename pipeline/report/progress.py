"""Progress of a run: a live display in a terminal, plain lines elsewhere.

Both receive the same calls from the runner, possibly from several threads.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from pipeline.machine.device_memory import device_bytes
from pipeline.masking import printable
from pipeline.report.units import counted, duration, size
from pipeline.runner.listener import Watcher


def progress(stream: TextIO | None = None) -> Watcher:
    """A live display where `stream` (stderr) is a terminal, plain lines otherwise."""
    out = stream if stream is not None else sys.stderr
    console = Console(file=out, highlight=False)
    return Live(console) if console.is_terminal and not console.is_dumb_terminal else Plain(out)


class Plain:
    """Progress as plain lines: one for each finished group of nodes, and regular ones meanwhile.

    `interval` is the least number of seconds between two lines on nodes that are still at work.
    """

    def __init__(
        self, out: TextIO, *, interval: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out = out
        self._interval = interval
        self._clock = clock
        self._lock = threading.RLock()
        self._printed = self._began = clock()
        self._total = self._done = 0
        self._site = ""
        self._built: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def start(self, total: int, reused: int) -> None:
        with self._lock:
            self._began = self._printed = self._clock()
            self._total, self._done = total, 0
            if total or reused:
                self._line(f"{counted(total, 'node')} to run, {reused} reused")

    def node_started(self, name: str) -> None:
        del name

    def update(self, name: str, fraction: float, text: str) -> None:
        with self._lock:
            if self._clock() - self._printed >= self._interval:
                done = f"{name}  {100 * fraction:.0f} %  {text}".rstrip()
                self._line(f"{done}{on_device(', ')}")

    def node_finished(self, name: str, seconds: float) -> None:
        with self._lock:
            site, member = site_of(name)
            self._done += 1
            self._built[site] = self._built.get(site, 0) + 1
            self._seconds[site] = self._seconds.get(site, 0.0) + seconds
            due = self._clock() - self._printed >= self._interval
            if not member or due or self._done == self._total:
                self._line(self._state(site, member))

    def message(self, text: str) -> None:
        with self._lock:
            self._line(printable(text))

    def stop(self) -> None:
        with self._lock:
            self._out.flush()

    def _state(self, site: str, member: bool) -> str:
        spent = duration(self._seconds[site])
        if not member:
            return f"{site}  {spent}"
        elapsed = self._clock() - self._began
        return (
            f"{self._done}/{self._total} nodes, {duration(elapsed)}; "
            f"{site}: {self._built[site]} built in {spent}{on_device(', ')}"
        )

    def _line(self, text: str) -> None:
        self._printed = self._clock()
        self._out.write(text + "\n")
        self._out.flush()


class Live:
    """Progress as a bar over all nodes with the time left, and a line for each node at work."""

    def __init__(self, console: Console) -> None:
        self._lock = threading.RLock()
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            _Remaining(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            transient=True,
        )
        self._all: TaskID | None = None
        self._nodes: dict[str, TaskID] = {}

    def start(self, total: int, reused: int) -> None:
        with self._lock:
            note = f"{reused} reused" if reused else ""
            if self._all is None:
                self._all = self._bars.add_task("all nodes", total=total, note=note)
            else:
                self._bars.reset(self._all, total=total, note=note)
            if total:
                self._bars.start()

    def node_started(self, name: str) -> None:
        with self._lock:
            self._nodes[name] = self._bars.add_task(name, total=1.0, note="")

    def update(self, name: str, fraction: float, text: str) -> None:
        with self._lock:
            if name in self._nodes:
                note = f"{text}{on_device(', ' if text else '')}"
                self._bars.update(self._nodes[name], completed=fraction, note=note)

    def node_finished(self, name: str, seconds: float) -> None:
        del seconds
        with self._lock:
            if name in self._nodes:
                self._bars.remove_task(self._nodes.pop(name))
            if self._all is not None:
                self._bars.advance(self._all)

    def message(self, text: str) -> None:
        self._bars.console.print(printable(text), markup=False, soft_wrap=True)

    def stop(self) -> None:
        with self._lock:
            self._bars.stop()


class _Remaining(ProgressColumn):
    """Time elapsed and, on the bar of all nodes, the estimated time left."""

    def render(self, task: Task) -> Text:
        spent = duration(task.elapsed or 0.0)
        left = task.time_remaining
        return Text(f"{spent}, {duration(left)} left" if left and task.total != 1.0 else spent)


def on_device(before: str) -> str:
    """`before` and the memory that is in use on GPUs; empty where none is used."""
    used = device_bytes()
    return "" if used is None else f"{before}{size(used)} on the GPU"


def site_of(name: str) -> tuple[str, bool]:
    """The site of a node, and whether it has several: `calibrate[3]` -> ("calibrate", True)."""
    site, bracket, _ = name.partition("[")
    return site, bool(bracket)
