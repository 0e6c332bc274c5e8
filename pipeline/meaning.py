"""What the fields of a config's dataclass mean, from where it is written: the class itself."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from typing import Any

_SENTENCE = re.compile(r"(?<=[.;])\s+(?=[A-Z`\"])")


def meaning(cls: type[Any], name: str) -> str:
    """What field `name` of a dataclass means; empty if nobody says.

    It is the docstring under the field, or else the sentences of the class's docstring that have
    the name in backticks; those of base classes count as well, the nearest first.
    """
    for base in cls.__mro__:
        if not dataclasses.is_dataclass(base):
            continue
        told = _under_fields(base).get(name) or _in_docstring(base, name)
        if told:
            return told
    return ""


def _under_fields(cls: type[Any]) -> dict[str, str]:
    """Field -> the text that stands below it in the class's source."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except OSError:  # a class that was made while running has no file
        return {}
    body = ast.parse(source).body[0]
    if not isinstance(body, ast.ClassDef):
        return {}
    found: dict[str, str] = {}
    for item, below in zip(body.body, body.body[1:], strict=False):
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[item.target.id] = _one_line(str(below.value.value))
    return found


def _in_docstring(cls: type[Any], name: str) -> str:
    text = _one_line(cls.__doc__ or "")
    sentences = _SENTENCE.split(text)
    return " ".join(sentence for sentence in sentences if f"`{name}`" in sentence)


def _one_line(text: str) -> str:
    return " ".join(text.split())
