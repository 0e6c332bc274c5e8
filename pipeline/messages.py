"""Messages on standard error: notes, errors of the user, crashes with their place."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from pipeline.errors import ManyErrors, UserError
from pipeline.masking import masked, printable


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
