"""Conversations of a dataset's rows as chat templates take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import UserError
from stages.tokens.dataset import Message
from stages.tokens.datasets.fields import as_turn

MEDIA = ("image", "audio", "video")
CALLS = ("tool_calls", "function_call")


def conversation(
    value: Any, where: str, *, filled: bool, fields: Mapping[str, str] | None = None
) -> list[Message]:
    """The turns of one row, which `where` names for errors.

    `filled`: the rows come from a table, which gives every turn every key of any turn, null where
    it had none: such nulls are left out. `fields` names keys and roles of other layouts; those of
    ShareGPT (from, value) are known. A turn that calls tools keeps a `content` that is null,
    for templates tell by it that there is a call; of any other turn it is no text. Raises
    UserError unless each turn has a role and a content, or calls tools, and for images and sounds.
    """
    turns = value if isinstance(value, list) else [value]
    return [_turn(as_turn(turn, fields or {}), where, filled=filled) for turn in turns]


def _turn(turn: Any, where: str, *, filled: bool) -> Message:
    if isinstance(turn, Mapping):
        given = _without_nulls(turn) if filled else dict(turn)
        calls = any(given.get(name) for name in CALLS)
        if given.get("role") is not None and ("content" in turn or calls):
            content = given.get("content")
            if medium := _medium(content):
                raise UserError(
                    f"{where} has a conversation with {medium}, which calibration cannot feed: it "
                    "runs the language model alone, on token ids",
                    remedy="give conversations of text",
                )
            return {**given, "content": "" if content is None and not calls else content}
    raise UserError(
        f"{where} has no conversation",
        remedy="each must be a list of {role, content}; dataset.fields={role:KEY,content:KEY} "
        "gives other names of these",
    )


def _medium(content: Any) -> str:
    """The type of the first part of a content that is no text but an image, a sound or a film."""
    parts = content if isinstance(content, list) else []
    kinds = [str(part.get("type", "")) for part in parts if isinstance(part, Mapping)]
    return next((kind for kind in kinds if kind.removeprefix("input_").startswith(MEDIA)), "")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
