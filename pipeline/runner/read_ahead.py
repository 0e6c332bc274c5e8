"""Reading ahead: while the nodes of a member run, those of the next have their files read.

What is read stays with the system, in memory that it takes back when it needs it, so nothing is
held and no result depends on it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from typing import Any

from pipeline.errors import UserError
from pipeline.graph import Node, Ref
from pipeline.planning.plan import Plan
from pipeline.stage import Artifact, Stage, Upcoming

log = logging.getLogger(__name__)


class ReadAhead:
    """Reads for a plan, on one thread; `find` gives a result that is there, by its key.

    A stage takes part by naming a module in `Stage.ahead`.
    """

    def __init__(self, plan: Plan, find: Callable[[Ref], Artifact | None]) -> None:
        self.bytes = 0
        self._stages: Mapping[str, Stage] = plan.graph.stages
        self._find = find
        self._next = {
            (step.node.site, step.node.index): step.node
            for step in plan.building()
            if step.node.index is not None
        }
        self._resources: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._begun: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read ahead")

    def started(self, node: Node) -> None:
        """Read for the node after this one of the same site, if it is to be built."""
        module = self._stages[node.site].ahead
        if node.index is None or not module:
            return
        with self._lock:
            upcoming = self._next.pop((node.site, node.index + 1), None)
        if upcoming is not None:
            read = import_module(module).read_ahead
            self._begun.append(self._pool.submit(self._read, read, upcoming))

    def close(self) -> None:
        """Leave out what has not begun; raises what is wrong with a `read_ahead`."""
        self._pool.shutdown(cancel_futures=True)
        for future in self._begun:
            if not future.cancelled():
                future.result()

    def _read(self, read: Callable[[Upcoming], int], node: Node) -> None:
        found = {name: self._find(ref) for name, ref in node.inputs.items()}
        upcoming = Upcoming(
            member=node.member,
            index=node.index,
            inputs={name: there for name, there in found.items() if there is not None},
            resource=self._resource,
        )
        try:
            self.bytes += read(upcoming)
        except (UserError, OSError) as error:
            log.debug("nothing is read ahead for %s: %s", node.name, error)  # its run will tell

    def _resource(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._resources:
            self._resources[name] = make()
        return self._resources[name]
