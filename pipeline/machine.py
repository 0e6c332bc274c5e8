"""CPUs and devices of this machine, without importing torch where that can be avoided."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import UserError
from pipeline.registry import choices

DEVICES = ("auto", "cpu", "cuda")

_DRIVER_FILES = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg")


def usable_cpus() -> int:
    """The number of CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def resolve_device(device: str) -> str:
    """`cpu` or `cuda` for the config's `device`; `auto` takes a CUDA device if there is one.

    torch is imported only where an NVIDIA driver is installed. Raises UserError for another name.
    """
    if device not in DEVICES:
        raise UserError(f"device is {device!r}", remedy=choices(device, DEVICES))
    if device != "auto":
        return device
    if not any(Path(name).exists() for name in _DRIVER_FILES):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
