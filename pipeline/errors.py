"""Errors that a person reads: what was given, what is allowed, what to do."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 2000
"""Characters of a line of a message: a value out of a file may have any number."""


class UserError(Exception):
    """A mistake in what was asked for, or something missing on this machine.

    The command line prints it without a traceback. `what` says what was found, `remedy` what to
    do about it; both are plain sentences. Of lines longer than LONGEST the middle is left out.
    """

    def __init__(self, what: str, *, remedy: str = "") -> None:
        what = "\n".join(_shown(line) for line in what.split("\n"))
        super().__init__(what if not remedy else f"{what}\n  {remedy}")
        self.what = what
        self.remedy = remedy


class ManyErrors(UserError):
    """Several mistakes found at once, so that none has to be met by running again."""

    def __init__(self, errors: Sequence[UserError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in errors))


class StageFailed(UserError):
    """A stage could not do its work on these inputs (numerics, a broken file, a full disk)."""


def _shown(line: str) -> str:
    if len(line) <= LONGEST:
        return line
    half = LONGEST // 2
    return f"{line[:half]} [{len(line) - 2 * half} characters more] {line[-half:]}"
