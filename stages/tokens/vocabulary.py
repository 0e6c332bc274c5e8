"""Check of token ids against the model's vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from stages.tokens.given_ids import GivenIds
from stages.tokens.tokenizer import Tokenizer
from stages.tokens.windows import Ids

PARTS = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")
"""Keys of a config.json that hold the config of the language model inside."""


def vocabulary(model: Path) -> int | None:
    """The size of the vocabulary that config.json in the folder `model` states, None if none."""
    file = model / "config.json"
    return vocabulary_of(json.loads(file.read_text("utf-8"))) if file.is_file() else None


def vocabulary_of(config: Mapping[str, Any]) -> int | None:
    """`vocab_size` of a parsed config.json, or of the language model inside."""
    size = config.get("vocab_size")
    if isinstance(size, int):
        return size
    inside = (config.get(name) for name in PARTS)
    sizes = (vocabulary_of(part) for part in inside if isinstance(part, Mapping))
    return next((size for size in sizes if size is not None), None)


def check_vocabulary(ids: Ids, tokenizer: Tokenizer | GivenIds, size: int | None) -> None:
    """Raise UserError if an id of `ids` has no row in an embedding of `size` rows."""
    if size is None or not ids.size or int(ids.max()) < size:
        return
    id = int(ids.max())
    if isinstance(tokenizer, GivenIds):
        raise UserError(
            f"id {id} is in the dataset, but the model has a vocabulary of {size} tokens (0 to "
            f"{size - 1})",
            remedy="give ids that the model's own tokenizer made",
        )
    raise UserError(
        f"the tokenizer makes id {id} ({tokenizer.named(id)!r}) of the dataset, but the model has "
        f"a vocabulary of {size} tokens (0 to {size - 1})",
        remedy="use the tokenizer that belongs to the model: tokens that were added to it need "
        "rows in the embedding",
    )
