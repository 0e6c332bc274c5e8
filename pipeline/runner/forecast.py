"""Forecast of a plan: bytes held in memory between nodes, spilled to disk, and stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from pipeline.graph import Ref
from pipeline.planning.plan import Plan, Step
from pipeline.runner.held import SHARE
from pipeline.runner.schedule import ReadyQueue, Releases, Transient, handed_on


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """Estimates in bytes, for nodes that run one after the other.

    `held` is the most that transient results take at a time, of which `limit` fits into memory and
    `spilled` does not; `memory` is the peak with what the nodes themselves need; `written` is by
    node what it adds to the store, `copied` what durable copies of transient results add.
    """

    held: int
    limit: int
    memory: int
    written: Mapping[str, int]
    copied: int

    @property
    def spilled(self) -> int:
        return max(0, self.held - self.limit)


def forecast(plan: Plan, transient: Transient, *, copy_every: int) -> Forecast:
    """Go through the nodes to be built in order, and count what is held meanwhile."""
    queue, releases = ReadyQueue(plan), Releases(plan, transient)
    chains, links = handed_on(plan, transient), Counter[str]()
    limit = _limit(plan, transient)
    there: dict[str, int] = {}
    held = memory = copied = 0
    while (name := queue.pop()) is not None:
        step = plan.steps[name]
        made = _made(plan, step, transient)
        # boundaries grow while the node runs; what it gathers is in its own estimate until then
        growing = {key: size for key, size in made.items() if key in chains}
        now = sum(there.values()) + sum(growing.values())
        memory = max(memory, step.node.estimate.memory + min(now, limit))
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
        memory=memory,
        written={step.node.name: written(step, transient) for step in plan.steps.values()},
        copied=copied,
    )


def written(step: Step, transient: Transient) -> int:
    """Bytes that a node adds to the store: without what passes, and what is there or not wanted."""
    node, estimate = step.node, step.node.estimate
    kept = set(step.missing) - transient(node.site) if step.status == "build" else {*node.outputs}
    return estimate.bytes - sum(s for output, s in estimate.outputs.items() if output not in kept)


def _made(plan: Plan, step: Step, transient: Transient) -> dict[str, int]:
    """Key -> bytes of the transient results that a node is to make."""
    sizes, keys = step.node.estimate.outputs, plan.graph.keys
    return {
        keys[Ref(node=step.node.name, output=output)]: sizes.get(output, 0)
        for output in set(step.missing) & transient(step.node.site)
    }


def _limit(plan: Plan, transient: Transient) -> int:
    """The least that any stage of the plan allows to be held in the memory of this machine."""
    most: int = psutil.virtual_memory().total // SHARE
    sites = {step.node.site for step in plan.building() if transient(step.node.site)}
    said = (plan.graph.stages[site].held_memory for site in sites if site in plan.graph.stages)
    return min((limit for limit in said if limit is not None), default=most)
