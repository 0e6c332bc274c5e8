"""Dataset of Python's own documentation (`dataset=pydoc`), which needs no download."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pipeline.key import Json
from stages.tokens.dataset import Dataset, Document
from stages.tokens.split_text import check_part, take_part


@dataclass(frozen=True, kw_only=True, slots=True)
class Pydoc(Dataset):
    """The topics of `help()`, in the order of their names.

    The text differs between Python versions. `part` takes the first half, the second or all.
    """

    kind: ClassVar[str] = "pydoc"

    part: str = "all"

    def __post_init__(self) -> None:
        Dataset.__post_init__(self)
        check_part(self.part)

    def identity(self) -> Json:
        digest = hashlib.sha256()
        for text in _topics():
            digest.update(hashlib.sha256(text.encode()).digest())
        return {"sha256": digest.hexdigest()}

    def documents(self, scratch: Path) -> Iterator[Document]:
        del scratch
        return iter(take_part(_topics(), self.part))

    def describe(self) -> str:
        half = {"all": "", "calibration": ", first half", "held_out": ", second half"}[self.part]
        return f"Python documentation{half}"


def _topics() -> list[str]:
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)]
