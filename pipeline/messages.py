"""Messages on standard error: notes, errors, crashes with their place; repeated ones told once."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import ManyErrors, UserError
from pipeline.masking import masked, printable

NUMBERED = re.compile(r"(?<=[A-Za-z_]\.)\d+(?=[.\s,:;)]|$)|(?<=\[)\d+(?=\])")
"""The number in a name such as `blocks.12.proj` or `build[12]`."""


def print_errors(error: UserError, label: str = "") -> None:
    """Print each of the errors on a line of its own, without a traceback."""
    for each in error.errors if isinstance(error, ManyErrors) else (error,):
        message(f"{label}error: {each}")


def print_crash(error: Exception, label: str, folder: Path) -> None:
    """Print the error and its place, the end of the traceback, and the file with all of it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    name = type(error).__name__
    message(f"{label}error: {name} in {frame.name} ({frame.filename}:{frame.lineno}): {error}")
    lines = "".join(traceback.format_exception(error)).splitlines()
    record = folder / "run.log"
    if record.is_file():
        message("\n".join(["  ...", *lines[-12:], f"The whole traceback is in {record}"]))
    else:
        message("\n".join(lines))


def message(text: str) -> None:
    """Print a line."""
    sys.stderr.write(f"{printable(masked(text))}\n")
    sys.stderr.flush()


def similar(text: str) -> str:
    """A message without the numbers in its names: equal for what is said of each part in turn."""
    return NUMBERED.sub("*", text)


def together(texts: Iterable[str]) -> list[str]:
    """Messages in their order, similar ones as the first of them with a count."""
    groups: dict[str, list[str]] = {}
    for text in texts:
        groups.setdefault(similar(text), []).append(text)
    return [
        group[0] if len(group) == 1 else f"{_shared(group)} ({len(group)} times)"
        for group in groups.values()
    ]


class Once:
    """Messages that were told, so that similar ones are not told again."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def new(self, texts: Iterable[str]) -> list[str]:
        """Those of some messages that are unlike all earlier ones."""
        found = {similar(text): text for text in texts if similar(text) not in self._told}
        self._told.update(found)
        return list(found.values())


def _shared(group: list[str]) -> str:
    return group[0] if len(set(group)) == 1 else similar(group[0])
