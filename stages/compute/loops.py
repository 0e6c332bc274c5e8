"""Choice of loops for a tensor: compiled on a CPU, Triton kernels on a GPU, plain torch elsewhere.

All give the same codes and scales. Plain torch is the readable reference, and what runs on a GPU
where Triton cannot: many times slower, which is said once.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Literal

from torch import Tensor

Loops = Literal["compiled", "triton", "torch"]

_said = Lock()  # held for good by the first who says it


def loops_for(tensor: Tensor) -> Loops:
    """The loops that work on the memory of `tensor`."""
    if tensor.device.type == "cpu":
        return "compiled"
    return "triton" if tensor.device.type == "cuda" and missing() is None else "torch"


@lru_cache(maxsize=1)
def missing() -> str | None:
    """What keeps Triton from compiling kernels here, None where nothing does.

    It compiles the code that launches a kernel with the system's C compiler.
    """
    if find_spec("triton") is None:
        return "triton is not installed"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "triton finds no C compiler"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "triton finds no headers of Python"
    return None


def warn_of_slow_loops(device: str, warn: Callable[[str], None]) -> None:
    """Warn, once in a process, that a GPU runs plain torch in place of kernels."""
    if device.startswith("cuda") and (reason := missing()) and _said.acquire(blocking=False):
        warn(
            f"{reason}: scales and codes are chosen by plain torch, many times slower than by "
            "kernels, with the same results. Install triton, a C compiler and Python's headers"
        )
