"""Dataset of Parquet files (`dataset=parquet`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stages.tokens.datasets.rows import LocalRows


@dataclass(frozen=True, kw_only=True, slots=True)
class Parquet(LocalRows):
    """Rows of Parquet files."""

    kind: ClassVar[str] = "parquet"
    builder: ClassVar[str] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")
