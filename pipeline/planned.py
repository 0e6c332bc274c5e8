"""A plan as plain data: what plan.json holds and `mode=plan` prints."""

from __future__ import annotations

from typing import Any

from pipeline.graph import Ref
from pipeline.plan import Plan, Step


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
        "keys": {o: plan.graph.keys[Ref(node=node.name, output=o)] for o in node.outputs},
        "inputs": {name: f"{ref.node}.{ref.output}" for name, ref in node.inputs.items()},
        "estimate": {
            "bytes": node.estimate.bytes,
            "memory": node.estimate.memory,
            "seconds": node.estimate.seconds,
        },
    }


def totals(plan: Plan) -> dict[str, float]:
    """Sums over the nodes to be built: count, bytes written, seconds; peak memory; reused count."""
    building = [step.node.estimate for step in plan.building()]
    return {
        "build": len(building),
        "reused": sum(step.status == "hit" for step in plan.steps.values()),
        "bytes": sum(e.bytes for e in building),
        "memory": max((e.memory for e in building), default=0),
        "seconds": sum(e.seconds for e in building),
    }
