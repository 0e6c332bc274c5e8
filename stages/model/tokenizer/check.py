"""Check a tokenizer's files without transformers: bounded ids, JSON that `tokenizers` parses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pipeline.errors import UserError
from pipeline.plain_file import is_plain, open_plain
from stages.weights.untrusted_json import read_json

PANIC = "PanicException"
"""Class of a panic in a library written in Rust; it derives from BaseException and has no module
that could be imported."""
LONGEST_REASON = 300

MOST = 1 << 24
"""Ids of a vocabulary: more than ten times those of the largest known."""
LONG = re.compile(rb"[0-9]{8}")
"""Digits that an id above MOST has."""
LONGEST = 1 << 28

LONGEST_SETTINGS = 16_000_000
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")


def tokenizer_fault(folder: Path) -> str | None:
    """The reason why no reader can load the tokenizer in a model folder; None: none was found.

    tokenizer.json is parsed by `tokenizers`, which all readers use, and the files of settings are
    as JSON. Other kinds of vocabularies are not looked at.
    """
    try:
        check_ids(folder)
        for name in SETTINGS:
            if is_plain(folder / name):
                read_json(folder / name, longest=LONGEST_SETTINGS)
        if not is_plain(folder / "tokenizer.json"):
            return None
    except UserError as error:
        return error.what
    try:
        Tokenizer.from_file(str(folder / "tokenizer.json"))
    except BaseException as error:
        if not of_rust(error):
            raise
        return f"tokenizer.json cannot be read: {reason_of(error)}"
    return None


def of_rust(error: BaseException) -> bool:
    """Whether an error is one of `tokenizers`: it raises `Exception` itself, and panics."""
    return type(error) is Exception or type(error).__name__ == PANIC


def reason_of(error: BaseException) -> str:
    """The text of an error in one line of bounded length, or its class."""
    return " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__


def check_ids(folder: Path) -> None:
    """Raise UserError for a token id of MOST or more in the tokenizer files of a model folder.

    A file without a number as long is not parsed.
    """
    for name in ("tokenizer.json", "vocab.json", "added_tokens.json", "tokenizer_config.json"):
        path = folder / name
        if not is_plain(path) or not _may_have_any(path):
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
