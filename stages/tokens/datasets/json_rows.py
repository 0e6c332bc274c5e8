"""Dataset of JSON files (`dataset=json`): a list of objects, or one object per line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipeline.errors import UserError
from stages.tokens.dataset import Document
from stages.tokens.datasets.json_values import json_values
from stages.tokens.datasets.rows import LocalRows


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonRows(LocalRows):
    """Rows of JSON or JSON Lines, which may differ in keys and types; see `json_values`.

    They are read one by one as far as they are wanted, and not by `datasets`, which makes a table
    of each 10 MB and refuses keys that the first has not.
    """

    kind: ClassVar[str] = "json"
    builder: ClassVar[str] = "json"
    suffixes: ClassVar[tuple[str, ...]] = (".json", ".jsonl", ".ndjson")
    filled: ClassVar[bool] = False

    def documents(self, scratch: Path) -> Iterator[Document]:
        del scratch
        yield from self.from_rows(self._rows())

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        for file in self.files():
            for number, value in enumerate(json_values(file)):
                if isinstance(value, Mapping):
                    yield value
                elif isinstance(value, str):
                    yield {"text": value}
                else:
                    raise UserError(
                        f"value {number} of {file.name} is no object but a {type(value).__name__}",
                        remedy="give a list of objects, or one object per line",
                    )
