"""Results that nodes make for other jobs of a sweep: as much as there is room for, and told."""

from __future__ import annotations

from dataclasses import replace

from pipeline.graph import Graph
from pipeline.planning.plan import Plan
from pipeline.runner.forecast import written
from pipeline.runner.local import LocalRunner
from pipeline.runner.preflight import in_bytes, room_problem
from pipeline.runner.schedule import Transient


def planned_in_passing(runner: LocalRunner, graph: Graph) -> Plan:
    """The plan of a graph with what other jobs need of its nodes, which the watcher is told.

    Without it, from then on, where the disk or the memory has no room for it.
    """
    plan, transient, store = runner.planned(graph), runner.transient(graph), runner.store
    notes = others_note(plan, transient)
    if notes and (problem := room_problem(plan, transient, store.free_bytes(), str(store.root))):
        runner.others = frozenset()
        plan = runner.planned(graph)
        notes = (f"nothing is gathered for other jobs of the sweep: {problem.what}",)
    for text in notes:
        runner.watcher.message(f"note: {text}")
    return plan


def others_note(plan: Plan, transient: Transient) -> tuple[str, ...]:
    """A sentence on what nodes of this plan make for other jobs of the sweep, if they do."""
    steps = [step for step in plan.steps.values() if step.for_others]
    if not steps:
        return ()
    names = sorted({f"{step.node.site}.{o}" for step in steps for o in step.for_others})
    more = sum(
        written(step, transient) - written(replace(step, for_others=()), transient)
        for step in steps
    )
    plural = "s gather" if len(steps) > 1 else " gathers"
    size = f"{in_bytes(more)} of results" if more else "which takes little space"
    return (
        f"{len(steps)} node{plural} {', '.join(names)} as well, {size}: other jobs of the sweep "
        "need it of the same inputs",
    )
