"""Decorator that compiles loops to machine code with numba."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[F], F]:
    """Decorator that compiles a function to machine code, which runs without the interpreter lock.

    `options` are numba's. Without fastmath the sign of a zero and every rounding are kept.
    """
    # an installed package may be read-only: then every process compiles for itself
    cache = os.access(Path(__file__).parent, os.W_OK)
    jit = numba.njit(nogil=True, error_model="numpy", cache=cache, **options)
    return cast(Callable[[F], F], jit)
