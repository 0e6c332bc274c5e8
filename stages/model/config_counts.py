"""Limits of the counts in a config.json: more of these would only exhaust memory or patience.

Sizes that a tensor must have are not among them: these are compared with the checkpoint's tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipeline.errors import UserError

MOST = {
    re.compile(pattern): most
    for pattern, most in {
        r"\w*(?:layers?|blocks?|depth)": 2_000,
        r"\w*experts": 10_000,
        r"num_labels": 100_000,
        r"\w*heads?": 100_000,
        r"\w*vocab_size\w*": 1 << 24,
        r"\w*(?:max_position|n_position|max_seq)\w*|n_ctx": 1 << 28,
    }.items()
}
REMEDY = "correct it, or fetch the model again"


def check_counts(config: Mapping[str, object]) -> None:
    """Raise UserError for a parsed config.json that counts more than any model has of something."""
    for name, value in config.items():
        for inner in value if isinstance(value, list) else (value,):
            if isinstance(inner, Mapping):
                check_counts(inner)
        for pattern, most in MOST.items():
            if isinstance(value, int | float) and pattern.fullmatch(name) and value > most:
                raise UserError(
                    f"config.json has {name} {value}: no model has more than {most}", remedy=REMEDY
                )
