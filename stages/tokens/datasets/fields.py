"""Field mapping of dataset rows: the names that other layouts have for roles, contents and text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.errors import UserError

ROLES = ("system", "user", "assistant", "tool")
TURN = ("role", "content")
SHAREGPT = {
    "system": "system",
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "model", "assistant"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function_response"), "tool"),
}
"""Senders (`from`) of ShareGPT's turns -> roles of chat templates."""
COLUMN = re.compile(r"\{([^{}]+)\}")


def check_fields(fields: Mapping[str, str], *, messages: bool, ids: bool) -> None:
    """Raise UserError for a mapping that says nothing of this layout.

    With a column of messages it names the keys of a turn (role, content) and the dataset's names of
    roles; else the columns that are the turns of a conversation, or the pattern of a text.
    """
    allowed = (*TURN, *ROLES) if messages else (*ROLES, "text")
    unknown = [name for name in fields if name not in allowed]
    if fields and ids:
        raise UserError("fields and ids_column are both given", remedy="leave one of them out")
    if unknown:
        raise UserError(
            f"fields has {', '.join(unknown)}",
            remedy=f"{'beside messages_column' if messages else 'without messages_column'} it may "
            f"have {', '.join(allowed)}",
        )
    if "text" in fields and len(fields) > 1:
        raise UserError(
            "fields has text and roles",
            remedy="give a text, or the columns of a conversation",
        )
    if "text" in fields and not COLUMN.search(fields["text"]):
        raise UserError(
            f"fields.text is {fields['text']!r}",
            remedy="name columns in braces: '{title}: {body}'",
        )


def needed_columns(fields: Mapping[str, str]) -> tuple[str, ...]:
    """The columns that a mapping without messages reads."""
    return tuple(COLUMN.findall(fields["text"])) if "text" in fields else tuple(fields.values())


def filled_text(pattern: str, row: Mapping[str, Any]) -> str:
    """The text of a row: a pattern with its columns in their places, null as nothing."""

    def value(match: re.Match[str]) -> str:
        found = row.get(match[1])
        return "" if found is None else str(found)

    return COLUMN.sub(value, pattern)


def turns_of(fields: Mapping[str, str], row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conversation in a row's columns, in the order of ROLES; empty ones are left out."""
    given = [(role, row.get(fields[role])) for role in ROLES if role in fields]
    return [{"role": role, "content": content} for role, content in given if content]


def as_turn(turn: Any, fields: Mapping[str, str]) -> Any:
    """A turn with `role` and `content`, from one that has other names for them, such as ShareGPT's.

    Anything else is returned as it is.
    """
    if not isinstance(turn, Mapping):
        return turn
    sharegpt = "role" not in turn and "from" in turn and "value" in turn
    role_key = fields.get("role", "from" if sharegpt else "role")
    content_key = fields.get("content", "value" if sharegpt else "content")
    if role_key not in turn:
        return turn
    sender = turn[role_key]
    names = {theirs: role for role, theirs in fields.items() if role in ROLES}
    role = names.get(sender, SHAREGPT.get(sender, sender) if sharegpt else sender)
    rest = {k: v for k, v in turn.items() if k not in (role_key, content_key)}
    if content_key not in turn:
        return {"role": role, **rest}
    return {"role": role, "content": turn[content_key], **rest}
