"""CPUs and devices of this machine, without importing torch."""

from __future__ import annotations

import os
import re

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
