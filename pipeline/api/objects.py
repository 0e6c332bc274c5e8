"""Arguments of a call that are no config values: texts in short form, and objects in memory.

Installed packages say what they stand for, through the entry points `presswork.objects`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.registry import Registry

Saver = Callable[[str, Mapping[str, Any], Path], Mapping[str, Any] | None]
"""From the name of an argument (`model`, `dataset`, `processor`), all arguments by name, and a
folder to the overrides that stand for the one; None for an argument or value that is not for it.
What must be a file is written into the folder, which is made when it is needed."""


def overrides_for(arguments: Mapping[str, Any], folder: Path, registry: Registry) -> dict[str, Any]:
    """The overrides for all arguments that are not None; their files are written into `folder`.

    Raises UserError for a value that nobody takes.
    """
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        if value is not None:
            found |= _one(name, arguments, folder, registry)
    return found


def _one(
    name: str, arguments: Mapping[str, Any], folder: Path, registry: Registry
) -> Mapping[str, Any]:
    for kind in registry.kinds("object"):
        saver: Saver = registry.get("object", kind)
        found = saver(name, arguments, folder)
        if found is not None:
            return found
    given = type(arguments[name])
    raise UserError(
        f"{name} is of type {given.__module__}.{given.__qualname__}, which nobody takes",
        remedy="`help(pipeline.compress)` says what may be given",
    )
