"""The plan of a run: nodes to build, nodes the store has, and both as plain data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.graph import Graph, Node, Ref

Status = Literal["hit", "build", "idle"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One node of a plan.

    `status`: `build` (some wanted output is missing), `hit` (all wanted outputs are stored) or
    `idle` (nothing that has to be built needs it). `missing` and `stored` split the wanted outputs.

    A node that is built makes `also` as well, in the same go: what nodes of the same key miss, and
    what other jobs of a sweep will. `for_others` is of that what only they want, said once for all
    nodes of a key.
    """

    node: Node
    status: Status
    missing: tuple[str, ...]
    stored: tuple[str, ...]
    also: tuple[str, ...] = ()
    for_others: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A step for every node of the graph, in an order in which each follows its inputs."""

    graph: Graph
    steps: Mapping[str, Step]

    def building(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps.values() if step.status == "build")

    def keys(self) -> frozenset[str]:
        """Keys of all outputs that this plan reads or builds."""
        return frozenset(
            self.graph.keys[Ref(node=step.node.name, output=output)]
            for step in self.steps.values()
            for output in (*step.missing, *step.stored)
        )


def make_plan(
    graph: Graph, stored: Callable[[str], bool], others: Collection[str] = frozenset()
) -> Plan:
    """Walk back from the targets and want only what is not stored and what that needs.

    `stored` says whether an output's key is in the store. `others` are keys of outputs that other
    jobs will want: nothing is built for their sake, but a node that is built makes them as well.
    """
    wanted: dict[str, set[str]] = {}
    for ref in graph.targets:
        wanted.setdefault(ref.node, set()).add(ref.output)
    steps: dict[str, Step] = {}
    for node in reversed(list(graph.nodes.values())):
        step = _step(node, wanted.get(node.name, set()), graph, stored)
        steps[node.name] = step
        if step.status == "build":
            for ref in node.inputs.values():
                wanted.setdefault(ref.node, set()).add(ref.output)
    ordered = {name: steps[name] for name in graph.nodes}
    return Plan(graph=graph, steps=ordered | _at_once(graph, ordered.values(), stored, others))


def _at_once(
    graph: Graph, steps: Iterable[Step], stored: Callable[[str], bool], others: Collection[str]
) -> dict[str, Step]:
    """The steps to be built that make more than they miss, with what they make also."""
    alike: dict[str, list[Step]] = {}
    for step in steps:
        if step.status == "build":
            first = Ref(node=step.node.name, output=step.node.outputs[0])
            alike.setdefault(graph.keys[first], []).append(step)
    found: dict[str, Step] = {}
    for group in alike.values():
        node = group[0].node
        keys = {output: graph.keys[Ref(node=node.name, output=output)] for output in node.outputs}
        missed = {output for step in group for output in step.missing}
        more = tuple(o for o in keys if keys[o] in others and o not in missed)
        more = tuple(output for output in more if not stored(keys[output]))
        for step in group:
            also = tuple(o for o in keys if o in missed.difference(step.missing) or o in more)
            if also:
                for_others = more if step is group[0] else ()
                found[step.node.name] = replace(step, also=also, for_others=for_others)
    return found


def _step(node: Node, wanted: set[str], graph: Graph, stored: Callable[[str], bool]) -> Step:
    names = [output for output in node.outputs if output in wanted]
    have = {o for o in names if stored(graph.keys[Ref(node=node.name, output=o)])}
    missing = tuple(output for output in names if output not in have)
    status: Status = "build" if missing else "hit" if names else "idle"
    return Step(
        node=node,
        status=status,
        missing=missing,
        stored=tuple(output for output in names if output in have),
    )


def to_make(graph: Graph, step: Step, stored: Callable[[str], bool]) -> list[str]:
    """Outputs that a step to be built has to make now; none where it has what it missed."""

    def lacking(outputs: Iterable[str]) -> list[str]:
        refs = {output: Ref(node=step.node.name, output=output) for output in outputs}
        return [output for output, ref in refs.items() if not stored(graph.keys[ref])]

    return lacking((*step.missing, *step.also)) if lacking(step.missing) else []


def plan_rows(plan: Plan) -> list[dict[str, Any]]:
    """One row a node: name, kind, status, keys of its outputs, inputs, estimates."""
    return [_row(plan, step) for step in plan.steps.values()]


def _row(plan: Plan, step: Step) -> dict[str, Any]:
    node = step.node
    return {
        "name": node.name,
        "kind": node.kind,
        "member": node.member,
        "status": step.status,
        "missing": list(step.missing),
        "stored": list(step.stored),
        "for_others": list(step.for_others),
        "keys": {o: plan.graph.keys[Ref(node=node.name, output=o)] for o in node.outputs},
        "inputs": {name: f"{ref.node}.{ref.output}" for name, ref in node.inputs.items()},
        "estimate": {
            "bytes": node.estimate.bytes,
            "memory": node.estimate.memory,
            "device_memory": node.estimate.device_memory,
            "seconds": node.estimate.seconds,
            "work": dict(node.estimate.work),
            "reads": node.estimate.reads,
        },
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteSteps:
    """The steps of one site that a run needs. `name` has the range of those that are built."""

    name: str
    building: tuple[Step, ...]
    stored: int


def steps_by_site(plan: Plan) -> tuple[tuple[SiteSteps, ...], tuple[str, ...]]:
    """The sites with something to build or to reuse, in order, and the names of the others."""
    by_site: dict[str, list[Step]] = {}
    for step in plan.steps.values():
        by_site.setdefault(step.node.site, []).append(step)
    needed, idle = [], []
    for site, steps in by_site.items():
        building = tuple(step for step in steps if step.status == "build")
        stored = sum(step.status == "hit" for step in steps)
        if building or stored:
            needed.append(
                SiteSteps(name=f"{site}{_range(building)}", building=building, stored=stored)
            )
        else:
            idle.append(site)
    return tuple(needed), tuple(idle)


def _range(steps: Sequence[Step]) -> str:
    numbers = sorted(step.node.index for step in steps if step.node.index is not None)
    if not numbers:
        return ""
    first, last = numbers[0], numbers[-1]
    if last - first + 1 != len(numbers):
        return "[...]"
    return f"[{first}]" if first == last else f"[{first}-{last}]"


def totals(plan: Plan) -> dict[str, float]:
    """Sums over the nodes to be built: count, bytes written, seconds; peak memory; reused count."""
    reused = sum(step.status == "hit" for step in plan.steps.values())
    return {**_totals(plan.building()), "reused": reused}


def totals_by_kind(plan: Plan) -> dict[str, dict[str, float]]:
    """The same for every kind of step, without the reused ones."""
    by_kind: dict[str, list[Step]] = {}
    for step in plan.building():
        by_kind.setdefault(step.node.kind, []).append(step)
    return {kind: _totals(steps) for kind, steps in by_kind.items()}


def _totals(steps: Sequence[Step]) -> dict[str, float]:
    costs = [step.node.estimate for step in steps]
    return {
        "build": len(costs),
        "bytes": sum(cost.bytes for cost in costs),
        "memory": max((cost.memory for cost in costs), default=0),
        "device_memory": max((cost.device_memory for cost in costs), default=0),
        "seconds": sum(cost.seconds for cost in costs),
    }
