"""Reader of documents that are token ids already, in the place of a tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from stages.tokens.dataset import Document, TokenIds


class GivenIds:
    """Ids as they are: no special tokens are added, no files of a tokenizer are read."""

    assistant_only: ClassVar[bool] = False
    bos: ClassVar[int | None] = None
    padding: ClassVar[int] = 0
    """The id that pads short samples; it is never attended to or counted."""

    def stream(self, documents: Iterable[Document]) -> Iterator[list[int]]:
        """Ids of each document for packing."""
        return (list(each.ids) for each in documents if isinstance(each, TokenIds))

    def samples(self, documents: Iterable[Document], length: int) -> Iterator[list[int]]:
        """Ids of each document by itself, cut at `length`."""
        return (ids[:length] for ids in self.stream(documents))
