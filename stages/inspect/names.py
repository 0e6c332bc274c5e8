"""Short forms of many module names: numbers as ranges, siblings in braces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
MARK = "*"


def pattern(name: str) -> str:
    """A name with its numbers replaced by `*`: "model.layers.*.mlp.up_proj"."""
    return NUMBER.sub(MARK, name)


def joined(names: Iterable[str]) -> str:
    """Names of one pattern as one: "model.layers.0-29.mlp.up_proj".

    Where not all combinations of several numbers are there the ranges cover more than the names.
    """
    known = list(names)
    numbers = [[int(found) for found in NUMBER.findall(name)] for name in known]
    text = pattern(known[0])
    for place in range(len(numbers[0])):
        text = text.replace(MARK, ranges(each[place] for each in numbers), 1)
    return text


def ranges(numbers: Iterable[int]) -> str:
    """Whole numbers as ranges: [0, 1, 2, 5] -> "0-2,5"."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
