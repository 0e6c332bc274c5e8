"""Load the tokenizer of a model folder; whatever its libraries raise becomes one clear error."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer

from pipeline.errors import UserError
from pipeline.plain_file import open_plain
from stages.weights.untrusted_json import read_json

PANIC = "PanicException"
"""Class of a panic in a library written in Rust; it derives from BaseException and has no module
that could be imported."""
FAULTS: tuple[type[Exception], ...] = (
    *(ArithmeticError, AttributeError, AssertionError, ImportError, LookupError, OSError),
    *(RuntimeError, TypeError, ValueError, TemplateError),
)
"""What transformers raises for files of another kind than it expects."""
LONGEST_REASON = 300
FETCH = "fetch the tokenizer's files (tokenizer.json, tokenizer_config.json) again"

MOST = 1 << 24
"""Ids of a vocabulary: more than ten times those of the largest known."""
LONG = re.compile(rb"[0-9]{8}")
"""Digits that an id above MOST has."""
LONGEST = 1 << 28


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a model folder; UserError if its files are broken or do not fit together."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    check_ids(folder)
    with readable("the model's tokenizer cannot be loaded"):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)


@contextmanager
def readable(problem: str, remedy: str = FETCH) -> Iterator[None]:
    """Context in which what a tokenizer's libraries raise becomes a UserError with `problem`.

    A full disk is another matter, and goes on.
    tokenizers raises `Exception` itself, and panics where a file promises what it has not.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        plain = type(error) is Exception or type(error).__name__ == PANIC
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or not (plain or isinstance(error, FAULTS)):
            raise
        reason = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
        raise UserError(f"{problem}: {reason}", remedy=remedy) from error


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
