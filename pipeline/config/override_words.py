"""Overrides of Hydra's command line, written from Python values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

_NAME = re.compile(r"[A-Za-z_][\w.:/+*?$|()\[\]-]*", re.ASCII)
_SPECIAL = re.compile(r"[()\[\]:]")
_WORDS = ("null", "true", "false", "nan", "inf")
_BEFORE_QUOTE = re.compile(r"(\\*)('|$)")


def words_of(given: Sequence[str] | Mapping[str, Any]) -> tuple[str, ...]:
    """Overrides as the command line has them, from such words or from keys with their values.

    `{"scheme": "w8a8", "modifier": ["smoothquant", "gptq"], "save.name": "mine"}`. Raises UserError
    for values that no config can hold.
    """
    if isinstance(given, str):
        raise UserError(
            f"overrides is the text {given!r}", remedy="give a list: overrides=['scheme=w4a16']"
        )
    if not isinstance(given, Mapping):
        return tuple(map(str, given))
    return tuple(f"{key}={text_of(value, str(key))}" for key, value in given.items())


def text_of(value: Any, key: str) -> str:
    """A value in the grammar of Hydra's overrides, quoted where it is a text.

    Dollar signs stay what they are, references of OmegaConf among them, as on the command line.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return _quoted(str(value))
    if isinstance(value, Mapping):
        inside = (f"{_key(str(k), key)}:{text_of(v, f'{key}.{k}')}" for k, v in value.items())
        return f"{{{','.join(inside)}}}"
    if isinstance(value, Sequence | frozenset | set) and not isinstance(value, bytes):
        return f"[{','.join(text_of(each, key) for each in value)}]"
    raise UserError(
        f"{key} is a {type(value).__name__}",
        remedy="a config holds texts, numbers, true and false, null, lists and mappings",
    )


def _key(name: str, key: str) -> str:
    """A key of a mapping, which Hydra's grammar does not let be quoted."""
    if not _NAME.fullmatch(name) or name.lower() in _WORDS:
        raise UserError(
            f"{key} has the key {name!r}",
            remedy="keys of mappings are names: letters, digits and _ . : / - + * ? $ | ( ) [ ]",
        )
    return _SPECIAL.sub(r"\\\g<0>", name)


def _quoted(text: str) -> str:
    """The text in single quotes: only a quote, and backslashes before one, need a backslash."""
    return "'" + _BEFORE_QUOTE.sub(_escaped, text) + "'"


def _escaped(match: re.Match[str]) -> str:
    slashes, quote = match.groups()
    return slashes * 2 + ("\\'" if quote else "")


def choices_first(words: Sequence[str]) -> Iterator[str]:
    """The words with choices of groups first, as values that are set depend on them."""
    yield from sorted(words, key=lambda word: "." in word.partition("=")[0])
