"""Forecast of a plan: bytes held in memory between nodes, spilled to disk, and stored."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from pipeline.graph import Ref
from pipeline.machine.gpus import BESIDE_TENSORS
from pipeline.planning.plan import Plan, Step
from pipeline.runner.held import room, storing_room
from pipeline.runner.schedule import ReadyQueue, Releases, Transient, handed_on

AT_ONCE = 2
"""Nodes whose results are being stored while the next one runs: `pipeline.runner.commits`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """Estimates in bytes, for nodes that run one after the other.

    `held` is the most that transient results take at a time: up to `device_limit` of it on the GPU,
    up to `limit` in host memory, the rest `spilled`. `memory` and `device_memory` are peaks with
    what the nodes need for themselves; `storing` is what results may take beside that while they
    are being stored. `written` is by node what it adds to the store, `copied` what durable copies
    of transient results add.
    """

    held: int
    limit: int
    device_limit: int
    memory: int
    device_memory: int
    storing: int
    written: Mapping[str, int]
    copied: int

    @property
    def on_device(self) -> int:
        return min(self.held, self.device_limit)

    @property
    def in_memory(self) -> int:
        return min(self.held - self.on_device, self.limit)

    @property
    def spilled(self) -> int:
        return self.held - self.on_device - self.in_memory


def forecast(
    plan: Plan, transient: Transient, *, copy_every: int, device_bytes: int = 0
) -> Forecast:
    """Go through the nodes to be built in order, and count what is held meanwhile.

    `device_bytes` is the memory of the GPU that they run on; 0: none, or none that is known.
    """
    queue, releases = ReadyQueue(plan), Releases(plan, transient)
    chains, links = handed_on(plan, transient), Counter[str]()
    said, needed = _said(plan, transient), reserved(plan)
    limit = room(psutil.virtual_memory().total, said, needed["cpu"])
    device_limit = room(device_bytes, said, needed["cuda"]) if device_bytes else 0
    there: dict[str, int] = {}
    held = memory = device_memory = copied = storing = 0
    stored = deque[int](maxlen=AT_ONCE)
    while (name := queue.pop()) is not None:
        step = plan.steps[name]
        made = _made(plan, step, transient)
        # boundaries grow while the node runs; what it gathers is in its own estimate until then
        growing = {key: size for key, size in made.items() if key in chains}
        now = sum(there.values()) + sum(growing.values())
        on_device = min(now, device_limit)
        memory = max(memory, step.node.estimate.memory + min(now - on_device, limit))
        device_memory = max(device_memory, step.node.estimate.device_memory + on_device)
        storing = max(storing, sum(stored))
        stored.append(written(step, transient))
        there |= made
        held = max(held, sum(there.values()))
        for key, size in growing.items():
            count = links[chains[key]] = links[chains[key]] + 1
            copied += size if count % copy_every == 0 else 0
        for ref in releases.finished(name):
            there.pop(plan.graph.keys[ref], None)
        queue.done(name)
    return Forecast(
        held=held,
        limit=limit,
        device_limit=device_limit,
        memory=memory,
        device_memory=device_memory,
        storing=min(storing, storing_room(psutil.virtual_memory().total, needed["cpu"])),
        written={step.node.name: written(step, transient) for step in plan.steps.values()},
        copied=copied,
    )


def reserved(plan: Plan) -> dict[str, int]:
    """Kind of memory -> what the hungriest node of a plan needs of it for itself."""
    costs = [step.node.estimate for step in plan.building()]
    return {
        "cpu": max((cost.memory for cost in costs), default=0),
        "cuda": BESIDE_TENSORS + max((cost.device_memory for cost in costs), default=0),
    }


def written(step: Step, transient: Transient) -> int:
    """Bytes that a node adds to the store: without what passes, and what is there or not wanted."""
    node, estimate = step.node, step.node.estimate
    made = {*step.missing, *step.for_others}
    kept = made - transient(node.site) if step.status == "build" else {*node.outputs}
    return estimate.bytes - sum(s for output, s in estimate.outputs.items() if output not in kept)


def _made(plan: Plan, step: Step, transient: Transient) -> dict[str, int]:
    """Key -> bytes of the transient results that a node is to make."""
    sizes, keys = step.node.estimate.outputs, plan.graph.keys
    return {
        keys[Ref(node=step.node.name, output=output)]: sizes.get(output, 0)
        for output in set(step.missing) & transient(step.node.site)
    }


def _said(plan: Plan, transient: Transient) -> int | None:
    """The least that any stage of the plan says may be held in a memory; None: none says it."""
    sites = {step.node.site for step in plan.building() if transient(step.node.site)}
    said = (plan.graph.stages[site].held_memory for site in sites if site in plan.graph.stages)
    return min((limit for limit in said if limit is not None), default=None)
