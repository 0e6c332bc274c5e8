"""presswork's framework: graph, keys, store, plan, runner. It knows no language model.

For Python programs, from `pipeline.api`, which is imported when one of them is first asked for:
`compress`, `plan`, `verify`, `load_result`, and what they return and raise.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import (
        Check,
        Outlook,
        Progress,
        Result,
        UserError,
        Verification,
        compress,
        load_result,
        plan,
        verify,
    )

__all__ = [
    "Check",
    "Outlook",
    "Progress",
    "Result",
    "UserError",
    "Verification",
    "compress",
    "load_result",
    "plan",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("pipeline.api"), name)
