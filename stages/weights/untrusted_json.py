"""Read untrusted JSON files, bounded in size and depth; every fault is a UserError."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.plain_file import open_plain

DEEPEST = 64


def read_json(path: Path, *, longest: int) -> dict[str, Any]:
    """The JSON object in a file of at most `longest` bytes.

    Raises UserError for a file that cannot be read, is larger, or holds something else.
    """
    try:
        with open_plain(path) as file:
            data = file.read(longest + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > longest:
        raise UserError(f"{path} has more than {longest} bytes: no such file is as large")
    try:
        found = json.loads(data, parse_constant=_tagged)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}", remedy="fetch it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object", remedy="fetch it again")
    if _depth(found) > DEEPEST:
        raise UserError(f"{path} is nested deeper than {DEEPEST} levels", remedy="fetch it again")
    return found


def _tagged(name: str) -> dict[str, str]:
    """Infinity and NaN, which JSON lacks, in the form in which transformers writes them."""
    return {"__float__": name}


def _depth(value: object) -> int:
    """Nesting depth of lists and objects, counted no further than what is refused."""
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        level, depth = below, depth + 1
    return depth
