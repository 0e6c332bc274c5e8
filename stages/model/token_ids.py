"""Limit of token ids in a tokenizer's files: libraries allocate a table up to the largest one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.plain_file import open_plain
from stages.weights.untrusted_json import read_json

MOST = 1 << 24
"""Ids of a vocabulary: more than ten times those of the largest known."""
LONG = re.compile(rb"[0-9]{8}")
"""Digits that an id above MOST has."""
LONGEST = 1 << 28


def check_ids(folder: Path) -> None:
    """Raise UserError for a token id of MOST or more in the tokenizer files of a model folder.

    A file without a number as long is not parsed.
    """
    for name in ("tokenizer.json", "vocab.json", "added_tokens.json", "tokenizer_config.json"):
        path = folder / name
        if not path.is_file() or not _may_have_any(path):
            continue
        for id in _ids(name, read_json(path, longest=LONGEST)):
            if id >= MOST:
                raise UserError(
                    f"{name} of the model's tokenizer has the token id {id}",
                    remedy=f"no vocabulary has {MOST} tokens: correct it, or fetch it again",
                )


def _may_have_any(path: Path) -> bool:
    try:
        with open_plain(path) as file:
            return LONG.search(file.read(LONGEST + 1)) is not None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _ids(name: str, content: Mapping[str, Any]) -> Iterator[int]:
    if name == "tokenizer.json":
        model = content.get("model")
        yield from _numbers(_values(model.get("vocab") if isinstance(model, Mapping) else None))
        added = content.get("added_tokens")
        for token in added if isinstance(added, list) else ():
            yield from _numbers([token.get("id")] if isinstance(token, Mapping) else ())
    elif name == "tokenizer_config.json":
        added = content.get("added_tokens_decoder")
        keys = added if isinstance(added, Mapping) else ()
        yield from (int(key) for key in keys if key.isascii() and key.isdigit())
    else:
        yield from _numbers(_values(content))


def _values(mapping: object) -> Iterable[object]:
    return mapping.values() if isinstance(mapping, Mapping) else ()


def _numbers(values: Iterable[object]) -> Iterator[int]:
    return (value for value in values if isinstance(value, int))
