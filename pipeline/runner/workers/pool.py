"""The pool of workers that a driver feeds: an executor (`pipeline.runner.executor`) of a plan.

The driver plans; a worker builds what it is told. A node goes to the worker that has most of its
inputs in memory. Workers are processes of this machine (`pipeline.runner.workers.process`) or of a
Ray cluster (`pipeline.runner.workers.ray_actor`): the pool knows them as handles only.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Protocol

from pipeline.errors import StageFailed, UserError
from pipeline.machine.signature import differences
from pipeline.messages import Once
from pipeline.planning.plan import Plan
from pipeline.runner.listener import Watcher
from pipeline.runner.schedule import Lost, Outcome, Vanished
from pipeline.runner.transients import Transients
from pipeline.runner.workers.messages import (
    Build,
    Computed,
    Done,
    Ended,
    Event,
    Failed,
    Follow,
    Forget,
    Logged,
    Order,
    Progress,
    Ready,
    Stop,
    Told,
)
from pipeline.runner.workers.storing import Storing

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Workers that may end while they build one node: the third has not been killed by chance."""

PATIENCE = 60.0
"""Seconds after which a driver without workers says that it waits for them."""

HERE = "driver"
"""The name of the driver among the workers."""


class Handle(Protocol):
    """A worker as the driver has it. What it tells goes to the pool's `hear`, from any thread."""

    def send(self, order: Order) -> None:
        """Hand over an order. One that has ended says so by an event, not here."""
        ...

    def close(self) -> None:
        """Let it store what is done, and end it; a node under way is left as it is."""
        ...


Hear = Callable[[Event], None]
Hire = Callable[[str, Hear], Handle]
"""Starts a worker of a name, whose events go to a function."""


class Pool:
    """Workers by name, each started by `hire` when it is first needed, and again after it ended.

    `signature` is what each must have to be used; `note` is told of outcomes.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        hire: Hire,
        *,
        signature: Mapping[str, str],
        watcher: Watcher,
        note: Callable[[Outcome], None],
    ) -> None:
        self.storing = Storing()
        self._names, self._hire, self._signature = names, hire, signature
        self._watcher, self._note = watcher, note
        self._events: SimpleQueue[tuple[str, Event]] = SimpleQueue()
        self._handles: dict[str, Handle] = {}
        self._idle: dict[str, None] = {}
        self._running: dict[str, str] = {}
        self._own: dict[str, dict[str, int]] = {}
        self._labels: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._ends = Counter[str]()
        self._told = Once()
        self._here = ThreadPoolExecutor(1, thread_name_prefix="here")
        self._under_way: dict[str, Future[None]] = {}
        self._plan: Plan | None = None

    def follow(self, plan: Plan, passing: Transients, here: Callable[[str], None]) -> None:
        """Begin to carry out a plan; `here` builds a node in this process, to its end."""
        self._plan, self._passing, self._build_here = plan, passing, here
        for name in self._names:
            if name not in self._handles and name not in self._refused:
                self._own[name] = {}
                self._handles[name] = self._hire(name, partial(self._hear, name))
        for handle in self._handles.values():
            handle.send(Follow(plan=plan))

    @property
    def free(self) -> bool:
        return bool(self._idle)

    def start(self, name: str) -> bool:
        """Begin a node on the worker that has most of its inputs, of those that can read all."""
        plan = self._followed
        node = plan.steps[name].node
        keys = {plan.graph.keys[ref] for ref in node.inputs.values()}
        if plan.graph.stages[node.site].in_driver:
            ready = all(self.storing.readable(key, HERE) for key in keys)
            if ready:
                self._watch(name, self._here.submit(self._build_here, name))
            return ready
        able = [w for w in self._idle if all(self.storing.readable(key, w) for key in keys)]
        if not able:
            return False
        self._forget()
        chosen = max(able, key=lambda w: sum(self._own[w].get(key, 0) for key in keys))
        held = {key: found for key in keys if (found := self._passing.get(key)) is not None}
        self.storing.begun(name)
        del self._idle[chosen]
        self._running[chosen] = name
        self._watcher.node_started(name)
        self._handles[chosen].send(Build(name=name, inputs=held))
        return True

    def finished(self) -> list[str]:
        done: list[str] = []
        problem = self._take(*self._next(), done)
        while problem is None and not self._events.empty():
            problem = self._take(*self._events.get(), done)
        if problem is not None:
            self._drain()
            raise problem
        return done

    def _next(self) -> tuple[str, Event]:
        """The next event; it is said where the first worker is long in coming."""
        if not self._labels:
            try:
                return self._events.get(timeout=PATIENCE)
            except Empty:
                count = len(self._handles)
                self._watcher.message(f"waiting for {count} workers: is there room for them?")
        return self._events.get()

    def settle(self) -> None:
        """Wait until all that was built is in the store and noted."""
        self.storing.settle()
        problem = None
        while problem is None and not self._events.empty():
            problem = self._take(*self._events.get(), [])
        if problem is not None and not isinstance(problem, Lost):
            raise problem

    def close(self) -> None:
        """End all workers, once what is done is stored."""
        self._here.shutdown(cancel_futures=True)
        for handle in self._handles.values():
            handle.send(Stop())
        for handle in self._handles.values():
            handle.close()
        self._handles.clear()
        self._idle.clear()
        self._running.clear()

    @property
    def _followed(self) -> Plan:
        if self._plan is None:
            raise RuntimeError("a pool follows a plan before it starts a node")
        return self._plan

    def _hear(self, worker: str, event: Event) -> None:
        """Take an event in the thread that brought it; what waits for the store learns it now."""
        if isinstance(event, Computed):
            self.storing.computed(worker, event.name, event.storing)
        elif isinstance(event, Done):
            self.storing.done(event.outcome.name)
        elif isinstance(event, Failed) and event.storing:
            self.storing.failed(event.name, event.error)
        elif isinstance(event, Ended):
            self.storing.lost(worker)
        self._events.put((worker, event))

    def _watch(self, name: str, future: Future[None]) -> None:
        """Have the end of a node that is built here be an event like those of workers."""
        self._under_way[name] = future

        def ended(of: Future[None]) -> None:
            error = None if of.cancelled() else of.exception()
            event = Computed(name=name) if error is None else Failed(name=name, error=error)
            self._events.put((HERE, event))

        future.add_done_callback(ended)

    def _take(self, worker: str, event: Event, done: list[str]) -> BaseException | None:
        """Act on an event; a node that is done joins `done`. Gives what ends this plan."""
        match event:
            case Ready():
                return self._judged(worker, event)
            case Computed():
                self._computed(worker, event)
                done.append(event.name)
            case Done():
                self._note(replace(event.outcome, worker=self._labels[worker]))
            case Failed():
                return self._failed(worker, event)
            case Progress():
                self._watcher.update(event.name, event.fraction, event.text)
            case Told():
                for text in self._told.new((event.text,)):
                    self._watcher.message(text)
            case Logged():
                logging.getLogger(event.logger).log(event.level, "%s", event.text)
            case Ended():
                return self._lost(worker, event.reason)
        return None

    def _judged(self, worker: str, event: Ready) -> BaseException | None:
        found = differences(self._signature, event.signature)
        self._labels[worker] = f"{worker} on {event.host}" if event.host else worker
        if not found:
            self._idle[worker] = None
            return None
        told = self._refused[worker] = "; ".join(found)
        self._handles.pop(worker).close()
        text = f"worker {self._labels[worker]} is not used, its results would be others: {told}"
        if self._handles:
            self._watcher.message(f"warning: {text}")
            return None
        return UserError(text, remedy="give all machines the same versions and kind of processor")

    def _computed(self, worker: str, event: Computed) -> None:
        if worker == HERE:
            del self._under_way[event.name]
            return
        del self._running[worker]
        self._idle[worker] = None
        self._own[worker].update({held.key: held.bytes for held in event.held})
        self._passing.adopt(self._followed.steps[event.name].node, event.held)

    def _failed(self, worker: str, event: Failed) -> BaseException:
        if worker == HERE:
            del self._under_way[event.name]
        for key in event.lost:
            self._passing.holdings.drop(key)
        if worker != HERE and self._running.get(worker) == event.name:
            del self._running[worker]
            self._idle[worker] = None
        if not isinstance(event.error, UserError | Vanished | Lost):
            log.error("%s failed on worker %s:\n%s", event.name, worker, event.traceback)
        return event.error

    def _lost(self, worker: str, reason: str) -> BaseException | None:
        if self._handles.pop(worker, None) is None:
            return None  # it was sent away
        self._idle.pop(worker, None)
        self._own[worker] = {}
        node = self._running.pop(worker, None)
        if node is None:
            return Lost(f"worker {worker} ended ({reason})")
        self._ends[node] += 1
        text = f"worker {worker} ended ({reason}) while it built {node}"
        if self._ends[node] < ATTEMPTS:
            return Lost(text)
        return StageFailed(
            f"{text}, as {ATTEMPTS - 1} did before it",
            remedy="if the system has ended them for want of memory, use fewer workers",
        )

    def _drain(self) -> None:
        """Wait for the nodes under way, before the plan is made anew or given up."""
        while self._running or self._under_way:
            problem = self._take(*self._events.get(), [])
            if problem is not None:
                log.warning("%s", problem)

    def _forget(self) -> None:
        """Tell workers what nobody reads any more."""
        there = self._passing.holdings.keys()
        for worker, own in self._own.items():
            gone = own.keys() - there
            if gone and worker in self._handles:
                self._handles[worker].send(Forget(keys=frozenset(gone)))
            self._own[worker] = {key: size for key, size in own.items() if key in there}
