"""NVIDIA GPUs of this machine, asked from the CUDA driver itself: torch is not imported for it.

Numbers are those that torch uses (`cuda:1`): both go by CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER.
"""

from __future__ import annotations

import ctypes
import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")

BESIDE_TENSORS = 1_000_000_000
"""Bytes of a GPU that tensors cannot have: the CUDA context and the workspaces of its libraries."""

# CUdevice_attribute in <cuda.h>
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One GPU: torch's number for it, its model, its compute capability and its memory."""

    index: int
    name: str
    capability: tuple[int, int]
    total_bytes: int

    @property
    def architecture(self) -> str:
        """As compilers name it: sm_90."""
        return "sm_{}{}".format(*self.capability)


@cache
def gpus() -> tuple[Gpu, ...]:
    """The GPUs that a process started like this one can use; none without a working driver."""
    driver = _driver()
    count = ctypes.c_int()
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(_gpu(driver, index) for index in range(count.value))


def gpu_of(device: str) -> Gpu | None:
    """The GPU that `cuda` or `cuda:1` stands for; None for another device, and where it is not."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return None
    number = int(index or 0)
    return gpus()[number] if number < len(gpus()) else None


def driver_version() -> str:
    """The driver's version and the newest CUDA that it runs; empty without a working driver."""
    driver, version = _driver(), ctypes.c_int()
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)):
        return ""
    cuda = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    try:
        found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", _KERNEL_MODULE.read_text())
    except OSError:
        found = None
    return f"{found[0]}, {cuda}" if found else cuda


def torch_cuda() -> str | None:
    """The CUDA version that the installed torch is built for, None: for none. Read from a file."""
    found = re.search(r"^cuda\b[^=]*=\s*['\"]([^'\"]+)", _torch_version(), re.MULTILINE)
    return found[1] if found else None


@cache
def _torch_version() -> str:
    """The text of torch/version.py; empty where torch is not installed."""
    spec = find_spec("torch")
    for folder in (spec and spec.submodule_search_locations) or ():
        try:
            return Path(folder, "version.py").read_text(encoding="utf-8")
        except OSError:
            continue
    return ""


@cache
def _driver() -> Any:
    """The driver's library, initialized; None where it is not installed or finds no GPU."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    return None if library.cuInit(0) else library


def _gpu(driver: Any, index: int) -> Gpu:
    handle, size = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(handle), index)
    driver.cuDeviceGetName(name, len(name), handle)
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), handle)
    return Gpu(
        index=index,
        name=name.value.decode(errors="replace"),
        capability=(
            _attribute(driver, handle, _CAPABILITY_MAJOR),
            _attribute(driver, handle, _CAPABILITY_MINOR),
        ),
        total_bytes=size.value,
    )


def _attribute(driver: Any, handle: ctypes.c_int, which: int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), which, handle)
    return value.value
