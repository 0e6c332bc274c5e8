"""Printed schedules of `mode=plan plan.workers=[8,64]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from pipeline.planning.plan import Plan, Step
from pipeline.report.units import duration, size
from pipeline.runner.forecast import Forecast
from pipeline.runner.schedule import Transient
from pipeline.scheduling.critical_path import critical_path, stretches
from pipeline.scheduling.machine import MachineConfig
from pipeline.scheduling.simulate import Schedule, schedule
from pipeline.stage import Estimate

OWN = "the estimates of the stages"
ORDER = (
    "order: the longest chain of nodes first; mode=run starts nodes member by member instead, and "
    "may take longer than this"
)
"""What a schedule on several workers assumes, and a run does not do."""


def print_schedules(
    plan: Plan,
    transient: Transient,
    expected: Forecast,
    machine: MachineConfig,
    workers: Sequence[int],
    console: Console,
) -> None:
    """Print what the nodes to be built take on so many workers, a column for each count."""
    if not plan.building():
        return

    def seconds(step: Step) -> float:
        return machine.seconds(step.node.estimate)

    found = [
        schedule(
            plan,
            transient,
            seconds,
            workers=count,
            network=machine.network,
            written=expected.written,
        )
        for count in workers
    ]
    console.print(
        f"\nSchedule by {machine.name or OWN}, {size(machine.network)}/s between workers:",
        markup=False,
    )
    console.print(_table(found))
    if max(workers) > 1:
        console.print(ORDER, markup=False)
    path = critical_path(plan, seconds)
    parts = [f"{each.name} ({_time(each.seconds)})" for each in stretches(plan, path, seconds)]
    whole = _time(sum(seconds(plan.steps[name]) for name in path))
    console.print(f"critical path: {whole}: {', '.join(parts)}", markup=False)
    for text in unfit(plan, machine):
        console.print(f"warning: {text}", markup=False)


def _table(found: Sequence[Schedule]) -> Table:
    table = Table("workers", box=None, header_style="bold")
    for one in found:
        table.add_column(str(one.workers), justify="right")
    rows: dict[str, Callable[[Schedule], str]] = {
        "time": lambda one: _time(one.makespan),
        "busy": lambda one: f"{100 * one.share:.0f} %",
        "busy, all workers together": lambda one: _time(sum(one.busy)),
        "host memory of a worker": lambda one: size(max(one.memory)),
        "device memory of a worker": lambda one: size(max(one.device_memory)),
        "moved between workers": lambda one: size(one.moved),
        "written to the store": lambda one: size(one.stored),
        "read from files": lambda one: size(one.read),
    }
    for name, cell in rows.items():
        if name.startswith("device") and not any(max(one.device_memory) for one in found):
            continue
        table.add_row(name, *map(cell, found))
    return table


def unfit(plan: Plan, machine: MachineConfig) -> list[str]:
    """A sentence for each kind of memory that some node needs more of than a worker has."""
    texts = []
    kinds: tuple[tuple[str, int | None, Callable[[Estimate], int]], ...] = (
        ("device memory", machine.device_memory, lambda cost: cost.device_memory),
        ("host memory", machine.memory, lambda cost: cost.memory),
    )
    for what, has, needs in kinds:
        worst = max((step.node for step in plan.building()), key=lambda n: needs(n.estimate))
        if has is None or needs(worst.estimate) <= has:
            continue
        stage = plan.graph.stages.get(worst.site)
        remedy = worst.estimate.remedy or (stage.lighter if stage is not None else "")
        texts.append(
            f"{worst.name} needs {size(needs(worst.estimate))} of {what}, and a worker has "
            f"{size(has)}{f': {remedy}' if remedy else ''}"
        )
    return texts


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 59.5 else f"{seconds:.1f} s"
