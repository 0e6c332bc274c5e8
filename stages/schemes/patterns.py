"""Regular expressions of targets and `ignore`, matched as compressed-tensors does, in bounded time.

compressed-tensors matches a `re:` pattern with Python's `re.match`, which can take longer than
anybody waits. Patterns come from strangers' checkpoints and recipes, so that here

- what `re` cannot be slow at (a few repeats of one character each) is left to it,
- what google-re2 reads as `re` does is matched by it, in time linear in the name,
- the rest (lookaround, backreferences, flags) is matched by `regex`, which stops after a while.

What neither reads as `re` does is refused.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from math import prod

from pipeline.errors import UserError

MARK = "re:"
LONGEST = 2000
"""Characters of a pattern."""
MOST_SLOW = 32
"""Patterns of one list that only a backtracking matcher can match."""
ONE_MATCH, ALL_MATCHES = 0.25, 1.0
"""Seconds that such a pattern may take: for a name, and for all names that take over a millisecond.
"""
NOTABLE = 0.001
MOST_REPEATS, MOST_BRANCHES = 2, 64
"""What `re` may be given: repeats in a pattern, and ways to take its alternatives and options."""

Match = Callable[[str], bool]

TOKEN = re.compile(
    r"""
    (?P<escape>\\(?:[dDwWsSbBAnrtf]|[!-/:-@\[-`{-~]))
  | (?P<set>\[\^?\]?(?:[^\]\[\\]|\\[dDwWsS]|\\[!-/:-@\[-`{-~])*\])
  | (?P<open>\((?:\?:|\?P<\w{1,40}>|(?!\?)))
  | (?P<close>\))
  | (?P<repeat>(?:[*+?]|\{[0-9]{1,4}(?:,[0-9]{0,4})?\})\??)
  | (?P<or>\|)
  | (?P<char>[^\\\[\](){}*+?|])
    """,
    re.VERBOSE,
)
"""What `re` and google-re2 read alike in a pattern and a name of printable ASCII."""

READ_OTHERWISE = re.compile(r"\[[:.=]|\{(?![0-9]+(?:,[0-9]*)?\})")
"""Plain text for `re`, but a class of characters or a fuzzy match for `regex`."""


def check_pattern(what: str, target: str) -> None:
    """Raise UserError for a `re:` pattern that is no regular expression, or not to be matched."""
    if not target.startswith(MARK):
        return
    pattern = target[len(MARK) :]
    if len(pattern) > LONGEST:
        raise UserError(
            f"{what} has a regular expression of {len(pattern)} characters",
            remedy=f"at most {LONGEST} are read: split it, or list names",
        )
    if _tokens(pattern) is None and READ_OTHERWISE.search(re.sub(r"\\.", "", pattern)):
        raise UserError(
            f"{what} has {target!r}, whose braces or brackets readers do not read alike",
            remedy=r"write a brace or bracket that stands for itself as \{ or \[",
        )
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(
            f"{what} has {target!r}, which is no regular expression: {error}"
        ) from error


def check_patterns(what: str, targets: Iterable[str]) -> None:
    """Raise UserError for any pattern of a list that cannot be matched, or for too many slow ones.

    What is no `re:` pattern is passed over.
    """
    slow = 0
    for target in targets:
        check_pattern(what, target)
        slow += target.startswith(MARK) and _tokens(target[len(MARK) :]) is None
        if slow > MOST_SLOW:
            raise UserError(
                f"{what} has more than {MOST_SLOW} regular expressions with lookaround, "
                "backreferences or flags",
                remedy="list names in place of some",
            )


def matches_pattern(target: str, name: str) -> bool:
    """Whether a `re:` pattern matches the start of a name, as `re.match` says.

    Raises UserError for a pattern that :func:`check_pattern` refuses, and for one that would take
    too long.
    """
    plain = name.isascii() and name.isprintable()
    return _matcher(target, plain)(name)


def is_quick(target: str) -> bool:
    """Whether a backtracking matcher is done soon with a pattern, whatever the name is."""
    tokens = _tokens(target.removeprefix(MARK))
    return tokens is not None and _quick(tokens)


@lru_cache(maxsize=8192)
def _matcher(target: str, plain: bool) -> Match:
    check_pattern("a target", target)
    pattern = target.removeprefix(MARK)
    tokens = _tokens(pattern)
    if tokens is not None and _quick(tokens):
        quick = re.compile(pattern)
        return lambda name: quick.match(name) is not None
    return _linear(pattern) if tokens is not None and plain else _stopped(pattern)


def _linear(pattern: str) -> Match:
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        linear = re2.compile(pattern, options)
    except re2.error as error:
        raise UserError(
            f"the regular expression {pattern!r} is too large: {error}",
            remedy="repeat less in it, or list names",
        ) from error
    return lambda name: linear.match(name) is not None


def _stopped(pattern: str) -> Match:
    import regex

    slow = regex.compile(pattern)
    left = ALL_MATCHES

    def match(name: str) -> bool:
        nonlocal left
        began = time.perf_counter()
        try:
            found = slow.match(name, timeout=min(ONE_MATCH, left)) is not None
        except TimeoutError:
            raise UserError(
                f"the regular expression {pattern!r} takes too long: more than {ONE_MATCH} s for "
                f"{name!r:.200}, or {ALL_MATCHES} s for all names",
                remedy="write it without repeats inside of repeats, or list names",
            ) from None
        took = time.perf_counter() - began
        left -= took if took > NOTABLE else 0.0
        left = max(left, NOTABLE)
        return found

    return match


def _tokens(pattern: str) -> list[tuple[str, str]] | None:
    """Kind and text of the parts of a pattern; None if `re2` may read one of them otherwise."""
    if not pattern.isascii():
        return None
    found = list(_scanned(pattern))
    if sum(len(text) for _, text in found) != len(pattern):
        return None
    kinds = [kind for kind, _ in found]
    if any(pair == ("repeat", "repeat") for pair in pairwise(kinds)):
        return None  # possessive
    return found


def _scanned(pattern: str) -> Iterator[tuple[str, str]]:
    at = 0
    while match := TOKEN.match(pattern, at):
        at = match.end()
        yield str(match.lastgroup), match[0]


def _quick(tokens: list[tuple[str, str]]) -> bool:
    """Whether few repeats and choices bound the steps of backtracking: no group is repeated."""
    repeats, options, branches = 0, 0, [1]
    stack = [0]
    for place, (kind, text) in enumerate(tokens):
        if kind == "open":
            branches.append(1)
            stack.append(len(branches) - 1)
        elif kind == "close":
            stack.pop()
        elif kind == "or":
            branches[stack[-1]] += 1
        elif kind == "repeat" and text.rstrip("?") == "":
            options += 1
        elif kind == "repeat":
            if tokens[place - 1][0] == "close":
                return False
            repeats += not re.fullmatch(r"\{[0-9]+\}\??", text)
    return repeats <= MOST_REPEATS and prod(branches) * 2**options <= MOST_BRANCHES
