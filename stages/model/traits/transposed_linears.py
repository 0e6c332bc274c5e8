"""Linears that a class keeps transposed (Conv1D of GPT-2), and why they stay dense."""

from __future__ import annotations

import re
from collections.abc import Iterable

KIND = "Conv1D"
"""transformers' class: y = x W + b with W [in, out]."""

WHY = (
    "compressed-tensors makes parameters for Linear and Embedding only, so that transformers loads "
    "a compressed Conv1D without an error and computes with its bare codes"
)
"""Tried with transformers 5.17 and compressed-tensors 0.19: relative error of the logits 1.2."""


def transposed_note(names: Iterable[str]) -> tuple[str, ...]:
    """What to tell of the modules `names`, all of them Conv1D; nothing where there are none."""
    found = list(names)
    patterns = list(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in found))
    if not found:
        return ()
    more = f" and {len(patterns) - 4} more" if len(patterns) > 4 else ""
    return (
        f"{len(found)} modules of class {KIND} stay as they are "
        f"({', '.join(patterns[:4])}{more}): {WHY}",
    )
