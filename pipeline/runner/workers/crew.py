"""Crews: which workers a run has beside its driver, and the pool of them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.graph import Graph
from pipeline.runner.listener import Watcher
from pipeline.runner.schedule import Outcome
from pipeline.runner.workers.messages import Setup
from pipeline.runner.workers.pool import Handle, Hear, Pool
from pipeline.runner.workers.process import hire_process
from pipeline.runner.workers.worker import signature_for
from pipeline.store import StoreConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Crew:
    """Workers by name, and what starts one. `device` is the kind that all compute on.

    Those that are `far` may be on other machines.
    """

    device: str
    names: tuple[str, ...]
    hire: Callable[[Setup, str, Hear], Handle]
    far: bool = False

    @contextmanager
    def pool(
        self,
        graph: Graph,
        *,
        store: StoreConfig,
        scratch: Path,
        keep_transient: bool,
        watcher: Watcher,
        note: Callable[[Outcome], None],
    ) -> Iterator[Pool]:
        """Context of a pool of these workers for the stages of a graph; it ends with them."""
        stages = graph.stages.values()
        packages = {type(stage).__module__.partition(".")[0] for stage in stages} | {"pipeline"}
        libraries = {name for stage in stages for name in stage.libraries}
        setup = Setup(
            store=store,
            driver=scratch,
            far=self.far,
            keep_transient=keep_transient,
            sharers=len(self.names),
            device=self.device,
            packages=tuple(sorted(packages)),
            libraries=tuple(sorted(libraries)),
            paths=tuple(sys.path),
        )
        pool = Pool(
            self.names,
            partial(self.hire, setup),
            signature=signature_for(setup),
            watcher=watcher,
            note=note,
        )
        with closing(pool):
            yield pool


def crew_of(devices: Sequence[str]) -> Crew:
    """One process for each device of this machine."""
    count, names = Counter[str](), dict[str, str]()
    for device in devices:
        names[f"{device}#{count[device]}" if devices.count(device) > 1 else device] = device
        count[device] += 1

    def hire(setup: Setup, name: str, hear: Hear) -> Handle:
        return hire_process(setup, names[name], hear)

    return Crew(device=devices[0].partition(":")[0], names=tuple(names), hire=hire)
