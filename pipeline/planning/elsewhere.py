"""Results that a store has from another processor, which a plan builds again on this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from pipeline.graph import Graph, Node, Ref
from pipeline.machine.processor import brief, in_key, processor
from pipeline.planning.plan import Plan


def sums(graph: Graph) -> bool:
    """Whether the key of any node depends on the processor."""
    here = in_key()
    return any(_with(node.params, here, "") != node.params for node in graph.nodes.values())


def stored_elsewhere(
    plan: Plan, others: Iterable[str], stored: Callable[[str], bool]
) -> dict[str, int]:
    """Signature of another processor -> how many nodes to build are stored as computed on it.

    `others` are the processors that the store knows, `stored` says whether it has a key.
    """
    if not plan.building() or not sums(plan.graph):
        return {}
    found = {}
    for other in others:
        if other == processor():
            continue
        nodes = [_moved(node, f"cpu, {other}") for node in plan.graph.nodes.values()]
        graph = Graph.of(nodes, plan.graph.targets)
        found[other] = sum(
            all(stored(graph.keys[Ref(node=step.node.name, output=o)]) for o in step.missing)
            for step in plan.building()
        )
    return {other: count for other, count in found.items() if count}


def elsewhere_note(
    plan: Plan, others: Iterable[str], stored: Callable[[str], bool]
) -> tuple[str, ...]:
    """One sentence for a plan or a run where results are not reused because of the processor."""
    return tuple(
        f"{count} of the nodes to run are stored as {brief(other)} computed them: this processor, "
        f"{brief(processor())}, sums in another order, so they are computed again"
        for other, count in stored_elsewhere(plan, others, stored).items()
    )


def _moved(node: Node, device: str) -> Node:
    return replace(node, params=_with(node.params, in_key(), device))


def _with(value: Any, old: str, new: str) -> Any:
    """Plain data with one text in place of another."""
    if isinstance(value, dict):
        return {name: _with(item, old, new) for name, item in value.items()}
    if isinstance(value, list):
        return [_with(item, old, new) for item in value]
    return new if value == old else value
