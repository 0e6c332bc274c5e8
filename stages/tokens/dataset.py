"""Base class of datasets: documents in a fixed order, and the identity of their content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pipeline.errors import UserError
from pipeline.key import WHEN_SET, Json

Message = Mapping[str, Any]
"""One turn of a conversation for a chat template: `role` and `content`."""


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A document that is token ids already, of the model that is compressed."""

    ids: tuple[int, ...]


Conversation = Sequence[Message]

Document = str | Conversation | TokenIds
"""A text, a conversation that the tokenizer's chat template turns into text, or token ids."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset(ABC):
    """Base class of all dataset kinds. A subclass sets `kind`, and gives documents and identity.

    `num_samples` sequences of `sequence_length` tokens are taken. With `packing` the documents
    form one stream of tokens that is cut into windows; without it each sample is one document,
    cut at `sequence_length` or padded. `seed` decides which samples; a larger `num_samples` with
    the same seed contains the smaller choice. With a `stride` windows overlap, one begins every so
    many tokens, and only its last `stride` tokens count: each has all that is before it in the
    window as context.
    """

    kind: ClassVar[str]

    num_samples: int = 16
    sequence_length: int = 512
    seed: int = 0
    packing: bool = True
    stride: int | None = field(default=None, metadata={"key": WHEN_SET})
    """Tokens from one window to the next, which alone count; null: windows do not overlap."""

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise UserError(f"num_samples is {self.num_samples}", remedy="give 1 or more")
        if self.sequence_length < 2:
            raise UserError(
                f"sequence_length is {self.sequence_length}",
                remedy="give 2 or more: a next token is predicted from the ones before it",
            )
        if self.stride is not None and not 1 <= self.stride < self.sequence_length:
            raise UserError(
                f"stride is {self.stride} with a sequence_length of {self.sequence_length}",
                remedy=f"give 1 to {self.sequence_length - 1}, or null for no overlap",
            )
        if self.stride is not None and not self.packing:
            raise UserError(
                f"stride is {self.stride} with packing=false",
                remedy="leave it out: a sample that is one document has no next window",
            )

    @abstractmethod
    def identity(self) -> Json:
        """Part of the key: what the documents depend on besides the fields, such as file hashes.

        Imports no library that is slow to import. Raises UserError if something is missing.
        """

    @property
    def has_ids(self) -> bool:
        """Whether all documents are `TokenIds`, so that no tokenizer is needed."""
        return False

    def files(self) -> tuple[Path, ...]:
        """The local files that `documents` reads; if one changes meanwhile, nothing is stored."""
        return ()

    @abstractmethod
    def documents(self, scratch: Path) -> Iterator[Document]:
        """All documents in a fixed order; temporary files go under `scratch`.

        Raises UserError for content that cannot be read.
        """

    @abstractmethod
    def describe(self) -> str:
        """A short name of the dataset for people."""


def counted_tokens(dataset: Dataset) -> str:
    """Which tokens of a dataset's samples count: `all`, or those of the `assistant`."""
    return str(getattr(dataset, "tokens", "all"))
