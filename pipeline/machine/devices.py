"""CPUs and devices of this machine, without importing torch."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from pipeline.errors import UserError
from pipeline.machine.gpus import gpu_of, gpus, torch_cuda
from pipeline.registry import choices

DEVICES = ("auto", "cpu", "cuda", "cuda:0")
"""What `device` may say; any other number of a GPU as well."""


def usable_cpus() -> int:
    """The number of CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def resolve_device(device: str, *, must_exist: bool = False, planned: bool = False) -> str:
    """`cpu`, `cuda` or `cuda:1` for the config's `device`; `auto` takes a GPU if there is one.

    Raises UserError for another name, and if it `must_exist` for a GPU that is not here or that the
    installed torch cannot use; what is only `planned` may be for another machine.
    """
    if device == "auto":
        return "cuda" if torch_cuda() and gpus() else "cpu"
    if device not in DEVICES and not re.fullmatch(r"cuda:\d+", device):
        meant = "cuda" if device.lower() in ("gpu", "nvidia") else device
        raise UserError(f"device is {device!r}", remedy=choices(meant, DEVICES))
    if device != "cpu" and must_exist and (reason := unusable(device)):
        here = ("cpu", *usable())
        remedy = f"choose one of {', '.join(here)}" if len(here) > 1 else "say device=cpu"
        remedy += "; see `presswork mode=doctor`"
        if planned:
            remedy += ", or plan.elsewhere=true for a plan of another machine"
        raise UserError(f"device is {device!r}, but {reason}", remedy=remedy)
    return device


def resolve_devices(
    devices: Sequence[object], device: str, *, must_exist: bool = False
) -> tuple[str, ...]:
    """The names of several devices of one kind: `cuda:0` for 0, `cpu` as often as it is given.

    Raises UserError for none, for devices that differ, so that results would depend on who made
    them, for a GPU given twice, and if the config's `device` is another than theirs.
    """
    named = [f"cuda:{given}" if str(given).isdigit() else str(given) for given in devices]
    named = [resolve_device(name, must_exist=must_exist) for name in named]
    named = [f"{name}:0" if name == "cuda" else name for name in named]
    told = f"runner.devices is [{', '.join(map(str, devices))}]"
    kinds = {name.partition(":")[0] for name in named}
    if not named:
        raise UserError(told, remedy="name devices, as in [cuda:0,cuda:1], or say null")
    if len(kinds) > 1:
        raise UserError(f"{told}, both CPU and GPU", remedy="name devices of one kind")
    if kinds == {"cuda"} and len({*named}) < len(named):
        raise UserError(f"{told}, a GPU twice", remedy="name each GPU once")
    if device not in ("auto", *kinds):
        raise UserError(
            f"device is {device!r} and {told}", remedy=f"say device={min(kinds)}, or leave it auto"
        )
    models = {gpu.name for name in named if (gpu := gpu_of(name)) is not None}
    if len(models) > 1:
        raise UserError(
            f"{told}, of the models {', '.join(sorted(models))}",
            remedy="their results differ: name GPUs of one model",
        )
    return tuple(named)


def usable() -> tuple[str, ...]:
    """The GPUs that torch can use here: cuda:0, cuda:1, ..."""
    return tuple(f"cuda:{gpu.index}" for gpu in gpus()) if torch_cuda() else ()


def unusable(device: str) -> str:
    """Why `cuda` or `cuda:1` cannot be computed on here; empty if it can."""
    found = ", ".join(f"cuda:{gpu.index} ({gpu.name})" for gpu in gpus())
    if not found:
        return "the NVIDIA driver finds no GPU here, or is not installed"
    if torch_cuda() is None:
        return f"the installed torch is built without CUDA; the driver finds {found}"
    return "" if gpu_of(device) else f"there is no such GPU; the driver finds {found}"
