"""Errors for users: what was given, what is allowed, and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.masking import masked, printable

LONGEST = 2000
"""Characters of a line of a message: a value from a file may be of any length."""


class UserError(Exception):
    """A mistake of the user, or something missing on this machine.

    The command line prints it without a traceback. `what` states the problem, `remedy` what to do
    about it; both are plain sentences. Lines longer than LONGEST are shortened in the middle,
    secrets are masked, and control characters spelt out.
    """

    def __init__(self, what: str, *, remedy: str = "") -> None:
        what, remedy = (printable(masked(text, error=True)) for text in (what, remedy))
        what = "\n".join(_shown(line) for line in what.split("\n"))
        super().__init__(what if not remedy else f"{what}\n  {remedy}")
        self.what = what
        self.remedy = remedy


class ManyErrors(UserError):
    """Several errors at once, so that they need not be found one run at a time."""

    def __init__(self, errors: Sequence[UserError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in errors))


class StageFailed(UserError):
    """A stage failed on these inputs (numerics, a broken file, a full disk)."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it, the newest first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _shown(line: str) -> str:
    if len(line) <= LONGEST:
        return line
    half = LONGEST // 2
    return f"{line[:half]} [{len(line) - 2 * half} characters more] {line[-half:]}"
