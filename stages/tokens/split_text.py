"""Split a text collection in two halves, so that calibration and evaluation do not overlap."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import UserError

PARTS = ("all", "calibration", "held_out")


def check_part(part: str) -> None:
    """Raise UserError unless `part` is one of PARTS."""
    if part not in PARTS:
        raise UserError(f"part is {part!r}", remedy=f"choose one of {', '.join(PARTS)}")


def take_part(texts: Sequence[str], part: str) -> list[str]:
    """The first half (`calibration`) or the second (`held_out`) of the characters, or `all`.

    The cut is at the end of the line with the middle character, so that the two halves together are
    the whole and no line is in both.
    """
    if part == "all":
        return list(texts)
    middle = sum(map(len, texts)) // 2
    before = 0
    for i, text in enumerate(texts):
        if before + len(text) > middle:
            cut = text.find("\n", middle - before) + 1 or len(text)
            first, second = [*texts[:i], text[:cut]], [text[cut:], *texts[i + 1 :]]
            return first if part == "calibration" else second
        before += len(text)
    return list(texts) if part == "calibration" else []
