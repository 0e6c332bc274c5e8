"""Dataset of JSON files (`dataset=json`): a list of objects, or one object per line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stages.tokens.datasets.rows import LocalRows


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonRows(LocalRows):
    """Rows of JSON or JSON Lines."""

    kind: ClassVar[str] = "json"
    builder: ClassVar[str] = "json"
    suffixes: ClassVar[tuple[str, ...]] = (".json", ".jsonl", ".ndjson")
