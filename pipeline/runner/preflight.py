"""Disk and memory check of a plan before anything runs."""

from __future__ import annotations

import psutil

from pipeline.errors import UserError
from pipeline.machine.gpus import BESIDE_TENSORS, gpu_of
from pipeline.planning.plan import Plan
from pipeline.runner.forecast import forecast, reserved
from pipeline.runner.schedule import Transient

AT_A_TIME = 4
"""Nodes with transient results whose files may exist at the same time."""


def needed_bytes(plan: Plan, transient: Transient) -> int:
    """Estimated upper bound of the bytes that the store needs for the nodes to be built.

    Of transient results, those of AT_A_TIME nodes count: the others have been dropped again.
    """
    transient_only = {
        step.node.name: step.node.estimate.bytes
        for step in plan.building()
        if {*step.missing, *step.for_others} <= transient(step.node.site)
    }
    kept = sum(s.node.estimate.bytes for s in plan.building() if s.node.name not in transient_only)
    return kept + sum(sorted(transient_only.values())[-AT_A_TIME:])


def check_device(plan: Plan, device: str, transient: Transient = lambda site: frozenset()) -> None:
    """Raise UserError when the GPU of `device`, if it is here, cannot hold what a node needs.

    Or, beside that, what passes from node to node, where the config says how much of it may.
    """
    gpu = gpu_of(device)
    if gpu is None or not plan.building():
        return
    step = max(plan.building(), key=lambda step: step.node.estimate.device_memory)
    cost = step.node.estimate
    needed = cost.device_memory + BESIDE_TENSORS
    if needed > gpu.total_bytes:
        raise UserError(
            f"{step.node.name} needs about {needed / 1e9:.2f} GB of "
            f"the GPU; {gpu.name} has {gpu.total_bytes / 1e9:.2f} GB",
            remedy=cost.remedy or "say device=cpu, or use a GPU with more memory",
        )
    expected = forecast(plan, transient, copy_every=1, device_bytes=gpu.total_bytes)
    with_held = expected.device_memory + BESIDE_TENSORS
    if with_held > gpu.total_bytes:
        raise UserError(
            f"one step of this run needs about {with_held / 1e9:.2f} GB of the GPU, "
            f"{expected.on_device / 1e9:.2f} GB of it for what is held for later ones; {gpu.name} "
            f"has {gpu.total_bytes / 1e9:.2f} GB",
            remedy=f"say calibrate.memory={gpu.total_bytes - needed}, or null for what fits",
        )


def check_room(
    plan: Plan, transient: Transient, free_bytes: int, store_dir: str, *, processes: int = 1
) -> None:
    """Raise UserError when the disk or the memory cannot hold what the plan needs.

    `processes` of this machine run a node each at a time.
    """
    if problem := room_problem(plan, transient, free_bytes, store_dir, processes=processes):
        raise problem


def room_problem(
    plan: Plan, transient: Transient, free_bytes: int, store_dir: str, *, processes: int = 1
) -> UserError | None:
    """The error of a plan that the disk or the memory cannot hold; None: they can."""
    needed = needed_bytes(plan, transient)
    if needed > free_bytes:
        return UserError(
            f"this run needs about {in_bytes(needed)} in {store_dir}, "
            f"where {in_bytes(free_bytes)} are free",
            remedy="free some with mode=gc, or point store.dir at a larger disk",
        )
    expected = forecast(plan, transient, copy_every=1)
    total, needed = psutil.virtual_memory().total, expected.memory + expected.storing
    more = (processes - 1) * reserved(plan)["cpu"]
    if needed <= total < needed + more:
        return UserError(
            f"{processes} nodes at a time need about {(needed + more) / 1e9:.2f} GB of memory; "
            f"this machine has {total / 1e9:.2f} GB",
            remedy="name fewer devices in runner.devices",
        )
    if needed <= total:
        return None
    held, lower = "", "calibrate.batch_size or dataset.sequence_length"
    if expected.held:
        held, lower = ", what is held for later ones included", f"calibrate.memory, {lower}"
    return UserError(
        f"one step of this run needs about {needed / 1e9:.2f} GB of memory{held}; "
        f"this machine has {total / 1e9:.2f} GB",
        remedy=f"lower {lower}, or use a larger machine",
    )


def in_bytes(count: int) -> str:
    """A size in words: 1500000 -> '1.50 MB'."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"
