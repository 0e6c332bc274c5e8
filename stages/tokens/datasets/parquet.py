"""Dataset of Parquet files (`dataset=parquet`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from stages.tokens.datasets.rows import LocalRows

BATCH = 1000
"""Rows that are decoded at a time: a row group of a small file may have any number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parquet(LocalRows):
    """Rows of Parquet files."""

    kind: ClassVar[str] = "parquet"
    builder: ClassVar[str] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")
    options: ClassVar[Mapping[str, Any]] = {"batch_size": BATCH}
