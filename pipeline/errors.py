"""Errors that a person reads: what was given, what is allowed, what to do."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """A mistake in what was asked for, or something missing on this machine.

    The command line prints it without a traceback. `what` says what was found, `remedy` what to
    do about it; both are plain sentences.
    """

    def __init__(self, what: str, *, remedy: str = "") -> None:
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
