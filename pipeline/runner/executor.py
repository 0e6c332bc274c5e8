"""Executors: who runs the nodes of a plan, and the loop that hands them the nodes that are ready.

An executor runs a node given the keys of its inputs, and its results are found by their keys then.
The nodes of a plan run in this process (`Inline`, `Threads`) or in others
(`pipeline.runner.workers.pool`); one loop, `carry_out`, plans for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol

from pipeline.runner.schedule import ReadyQueue


class Executor(Protocol):
    """Runs nodes by their names, as many at a time as it has workers for."""

    @property
    def free(self) -> bool:
        """Whether a worker has nothing to do."""
        ...

    def start(self, name: str) -> bool:
        """Begin a node, whose inputs are there; False: none of the free workers may do it now."""
        ...

    def finished(self) -> list[str]:
        """Wait until what was started has got on; the nodes that are done by now.

        Raises what made a node fail.
        """
        ...


def carry_out(queue: ReadyQueue, executor: Executor, after: Callable[[str], None]) -> None:
    """Run the nodes of a queue to its end; `after` is called here when one is done."""
    while queue.active():
        put_off = []
        while executor.free and (name := queue.pop()) is not None:
            if not executor.start(name):
                put_off.append(name)
        for name in put_off:
            queue.put_back(name)
        for name in executor.finished():
            after(name)


class Inline:
    """One node after the other, in this thread."""

    def __init__(self, run_one: Callable[[str], None]) -> None:
        self._run_one = run_one
        self._done: list[str] = []

    @property
    def free(self) -> bool:
        return not self._done

    def start(self, name: str) -> bool:
        self._run_one(name)
        self._done.append(name)
        return True

    def finished(self) -> list[str]:
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Nothing is under way."""


class Threads:
    """As many nodes side by side as there are threads."""

    def __init__(self, workers: int, run_one: Callable[[str], None]) -> None:
        self._run_one, self._workers = run_one, workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="worker")
        self._running: dict[Future[None], str] = {}

    @property
    def free(self) -> bool:
        return len(self._running) < self._workers

    def start(self, name: str) -> bool:
        self._running[self._pool.submit(self._run_one, name)] = name
        return True

    def finished(self) -> list[str]:
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        return [self._running.pop(future) for future in done]

    def close(self) -> None:
        """Leave out what has not begun, and wait for what has."""
        self._pool.shutdown(cancel_futures=True)
