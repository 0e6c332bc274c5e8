"""Limit of a model's sequence length where its positions are learned, one vector each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.errors import UserError
from stages.model.blueprint import Blueprint

TABLE = re.compile(
    r"(?:^|\.)(?:wpe|embed_positions|positions_embed|position_embeddings?|pos_embed)\.weight$"
)
STATED = ("max_position_embeddings", "n_positions", "max_target_positions")
BY_PADDING = re.compile(r"roberta|camembert|data2vec-text|xmod|xlm-roberta")
"""Model types that number positions from the padding's id on, so that the table's start is lost."""


def learned_positions(blueprint: Blueprint) -> int | None:
    """The longest sequence that the text model has a learned position for; None: no such limit.

    The table is found by its name among the decoder's tensors. Some tables are a few rows longer
    than what the config states (OPT has 2), and those rows are no positions.
    """
    inside = f"{blueprint.decoder}." if blueprint.decoder else ""
    for name, shape in blueprint.outside_shapes.items():
        if name.startswith(inside) and len(shape) == 2 and TABLE.search(name):
            return _limit(blueprint, shape[0])
    return None


def _limit(blueprint: Blueprint, rows: int) -> int:
    config = _text_config(blueprint.config)
    if BY_PADDING.search(blueprint.model_type):
        padding = config.get("pad_token_id")
        return rows - 1 - (padding if isinstance(padding, int) else 1)
    stated = [limit for name in STATED if isinstance(limit := config.get(name), int)]
    return min(rows, *(limit or rows for limit in stated), rows)


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inside = config.get("text_config")
    return inside if isinstance(inside, Mapping) else config


def length_problem(model: object, tokens: object, setting: str) -> UserError | None:
    """What is wrong with the length of sequences for a model; None: nothing, or not known yet.

    model: a blueprint; tokens: the facts of the stage `tokens`; `setting` is the config's key.
    """
    if not isinstance(model, Blueprint) or not isinstance(tokens, Mapping):
        return None
    limit, length = learned_positions(model), tokens["sequence_length"]
    if limit is None or length <= limit:
        return None
    return UserError(
        f"{setting} is {length}, but {model.architecture} has learned positions for {limit} tokens",
        remedy=f"say {setting}={limit}, or less",
    )
