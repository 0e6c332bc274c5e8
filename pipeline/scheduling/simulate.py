"""List scheduling of a plan on several workers: who builds what when, and what moves for it.

Nodes start as soon as a worker is free, of several that could the one with the longest chain still
to follow (`pipeline.runner.schedule.ReadyQueue`), on the worker that has the most of their inputs;
the others' arrive over its network first.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.graph import Node, Ref
from pipeline.planning.plan import Plan, Step
from pipeline.runner.schedule import ReadyQueue, Releases, Transient


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A node of a schedule: on which worker, from when to when (seconds), of it `moving` inputs."""

    name: str
    worker: int
    start: float
    end: float
    moving: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """What a plan is expected to take on so many workers. Bytes and seconds.

    `busy` is by worker how long it works, moving inputs included. `memory` and `device_memory` are
    by worker the most that it needs at a time, of that what transient results of nodes take until
    they are read. `moved` counts inputs that were made elsewhere, `stored` the results that go to
    the store, `read` files that nodes read, such as a source's.
    """

    workers: int
    placed: Mapping[str, Placed]
    busy: tuple[float, ...]
    memory: tuple[int, ...]
    device_memory: tuple[int, ...]
    moved: int
    stored: int
    read: int

    @property
    def makespan(self) -> float:
        """Seconds from the start of the first node to the end of the last."""
        return max((each.end for each in self.placed.values()), default=0.0)

    @property
    def share(self) -> float:
        """The part of the workers' time in which they are busy."""
        total = self.workers * self.makespan
        return sum(self.busy) / total if total else 0.0


@dataclass(slots=True)
class _Worker:
    free: bool = True
    busy: float = 0.0
    held: dict[str, int] = field(default_factory=dict)
    """Key -> bytes of transient results that it made and that are yet to be read."""
    has: set[str] = field(default_factory=set)
    """Keys of all that it made or fetched."""
    memory: int = 0
    device_memory: int = 0


def schedule(
    plan: Plan,
    transient: Transient,
    seconds: Callable[[Step], float],
    *,
    workers: int,
    network: float,
    written: Mapping[str, int],
) -> Schedule:
    """Go through the nodes to be built as `workers` would.

    seconds: of a step on any of them, without moving inputs. network: bytes a second that a worker
    receives. written: by node what it adds to the store (`pipeline.runner.forecast`).
    """
    chains = workers > 1
    queue, releases = ReadyQueue(plan, chains_first=chains), Releases(plan, transient)
    team = [_Worker() for _ in range(workers)]
    placed: dict[str, Placed] = {}
    running: list[tuple[float, int, str]] = []
    passing = {
        key for ref, key in plan.graph.keys.items() if ref.output in transient(_site(plan, ref))
    }
    now, moved = 0.0, 0
    while queue.active():
        while any(worker.free for worker in team) and (name := queue.pop()) is not None:
            step = plan.steps[name]
            inputs = input_bytes(plan, step.node)
            index = _place(team, inputs)
            worker = team[index]
            missing = {key: size for key, size in inputs.items() if key not in worker.has}
            moving = sum(missing.values()) / network
            moved += sum(missing.values())
            worker.has |= inputs.keys()  # stored ones stay on its disk, others until they are read
            end = now + moving + seconds(step)
            placed[name] = Placed(name=name, worker=index, start=now, end=end, moving=moving)
            worker.free, worker.busy = False, worker.busy + end - now
            cost = step.node.estimate
            fetched = sum(size for key, size in missing.items() if key in passing)
            beside = sum(worker.held.values()) + fetched
            worker.memory = max(worker.memory, cost.memory + beside)
            worker.device_memory = max(worker.device_memory, cost.device_memory)
            heapq.heappush(running, (end, index, name))
        now, index, name = heapq.heappop(running)
        team[index].free = True
        node = plan.steps[name].node
        for output, size in output_bytes(node).items():
            key = plan.graph.keys[Ref(node=name, output=output)]
            team[index].has.add(key)
            if output in transient(node.site):
                team[index].held[key] = size
        for ref in releases.finished(name):
            for worker in team:
                worker.held.pop(plan.graph.keys[ref], None)
        queue.done(name)
    return Schedule(
        workers=workers,
        placed=placed,
        busy=tuple(worker.busy for worker in team),
        memory=tuple(worker.memory for worker in team),
        device_memory=tuple(worker.device_memory for worker in team),
        moved=moved,
        stored=sum(written[name] for name in placed),
        read=sum(plan.steps[name].node.estimate.reads for name in placed),
    )


def _site(plan: Plan, ref: Ref) -> str:
    return plan.graph.nodes[ref.node].site


def _place(team: list[_Worker], inputs: Mapping[str, int]) -> int:
    """The free worker with most of the inputs; of equal ones that which was busy the least."""

    def there(index: int) -> tuple[int, float, int]:
        worker = team[index]
        return (
            -sum(size for key, size in inputs.items() if key in worker.has),
            worker.busy,
            index,
        )

    return min((index for index, worker in enumerate(team) if worker.free), key=there)


def input_bytes(plan: Plan, node: Node) -> dict[str, int]:
    """Key -> bytes of the results that a node reads."""
    return {
        plan.graph.keys[ref]: output_bytes(plan.graph.nodes[ref.node]).get(ref.output, 0)
        for ref in node.inputs.values()
    }


def output_bytes(node: Node) -> dict[str, int]:
    """Output -> bytes of it, as the node's stage estimates them."""
    cost = node.estimate
    if len(node.outputs) == 1:
        return {node.outputs[0]: cost.bytes}
    return {output: cost.outputs.get(output, 0) for output in node.outputs}
