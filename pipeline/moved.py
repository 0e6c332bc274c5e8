"""Aliases that warn, for modules that plugins import and that have moved. They go in 0.2."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any


def moved(old: str, new: str) -> Callable[[str], Any]:
    """The module-level `__getattr__` (PEP 562) of `old`: names of the module `new`, with a warning.

    FutureWarning, unlike DeprecationWarning, is shown to whoever runs a plugin, not only to
    whoever tests it. The new module is imported with the first name that is asked for.
    """

    def __getattr__(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(new), name)
        warnings.warn(
            f"{old} has moved to {new}: import {name} from there (the old place goes in 0.2)",
            FutureWarning,
            stacklevel=2,
        )
        return value

    return __getattr__
