"""Base classes of datasets of rows and columns, streamed by the `datasets` library."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from pipeline.errors import UserError
from pipeline.key import WHEN_SET, Json
from stages.tokens.dataset import Dataset, Document, TokenIds
from stages.tokens.dataset_files import content, find_files
from stages.tokens.datasets.conversation import conversation
from stages.tokens.datasets.fields import (
    check_fields,
    filled_text,
    needed_columns,
    turns_of,
)

COUNTED = ("all", "assistant")
LARGEST_ID = 1 << 31
SPARSE = 1000
"""Rows that may lack the column before one has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows(Dataset):
    """Rows whose documents are a column of text, of conversations or of token ids.

    `ids_column`, if set, holds lists of token ids, as a script leaves them that has tokenized
    its data; no tokenizer is asked. `messages_column`, if set, holds lists of {role, content} that
    go through the tokenizer's chat template; else `text_column` holds text. With `tokens:
    assistant` only what the template marks as the assistant's counts; the model sees the rest all
    the same. `max_documents` reads only the first rows, which makes very large datasets usable.
    """

    filled: ClassVar[bool] = True
    """Rows have every key of any row, null where they had none, as those of tables do."""

    text_column: str = "text"
    messages_column: str | None = None
    ids_column: str | None = field(default=None, metadata={"key": WHEN_SET})
    """A column of lists of token ids; no other column is read then."""
    tokens: str = field(default="all", metadata={"key": WHEN_SET})
    """all | assistant: which tokens of a conversation count in statistics and measures."""
    max_documents: int | None = None
    fields: dict[str, str] | None = field(default=None, metadata={"key": WHEN_SET})
    """Names of other layouts: {role: from, content: value, user: human} of a turn's keys and roles;
    without messages_column {user: instruction, assistant: output}, columns that are turns, or
    {text: "{title}: {body}"}."""

    def __post_init__(self) -> None:
        Dataset.__post_init__(self)
        if self.tokens not in COUNTED:
            raise UserError(
                f"tokens is {self.tokens!r}", remedy=f"choose one of {', '.join(COUNTED)}"
            )
        check_fields(
            self.names, messages=self.messages_column is not None, ids=self.ids_column is not None
        )
        if self.tokens != "all" and not self.has_conversations:
            raise UserError(
                f"tokens is {self.tokens!r}, and the dataset has no conversations",
                remedy="name their column: dataset.messages_column, or say tokens: all",
            )
        if self.ids_column is not None and self.messages_column is not None:
            raise UserError(
                f"ids_column is {self.ids_column!r} and messages_column {self.messages_column!r}",
                remedy="name one of them: a document is token ids or a conversation",
            )
        if self.max_documents is not None and self.max_documents < 1:
            raise UserError(
                f"max_documents is {self.max_documents}",
                remedy="give 1 or more, or null for all",
            )

    @property
    def has_ids(self) -> bool:
        return self.ids_column is not None

    @property
    def names(self) -> Mapping[str, str]:
        """The entries of `fields`; none where it is null."""
        return self.fields or {}

    @property
    def has_conversations(self) -> bool:
        """Whether documents are conversations: of a column, or of the columns in `fields`."""
        mapped = bool(self.names) and "text" not in self.names
        return self.messages_column is not None or mapped

    def from_rows(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Document]:
        """The document of each row; rows without content are left out.

        Raises UserError if none of the first SPARSE rows has the column, or none at all.
        """
        column = self.ids_column or self.messages_column or self.text_column
        mapped = bool(self.names) and self.messages_column is None
        if mapped:
            column = needed_columns(self.names)[-1]
        found, names = False, dict[str, None]()
        for i, row in enumerate(islice(rows, self.max_documents)):
            found = found or column in row
            if not found:
                names.update(dict.fromkeys(row))
                if i >= SPARSE:
                    break
            if mapped:
                if document := self._mapped(row):
                    yield document
            elif value := row.get(column):
                yield self._document(value, i, column)
        if names and not found:
            raise UserError(
                f"{self.describe()} has no column {column!r}",
                remedy=f"it has {', '.join(names)}: set dataset.text_column, or "
                "dataset.messages_column for conversations, dataset.ids_column for token ids, "
                "dataset.fields for other layouts",
            )

    def _mapped(self, row: Mapping[str, Any]) -> Document:
        """The document of a row whose columns `fields` names."""
        if "text" in self.names:
            return filled_text(self.names["text"], row).strip()
        return turns_of(self.names, row)

    def _document(self, value: Any, row: int, column: str) -> Document:
        if self.ids_column is not None:
            return token_ids(value, f"row {row} of {self.describe()}, column {column!r},")
        if self.messages_column is not None:
            where = f"row {row} of {self.describe()}, column {column!r},"
            return conversation(value, where, filled=self.filled, fields=self.names)
        if not isinstance(value, str):
            raise UserError(
                f"row {row} of {self.describe()} has no text in column {column!r} but a "
                f"{type(value).__name__}",
                remedy="name a column of text, or set dataset.messages_column for conversations",
            )
        return value


def token_ids(value: Any, where: str) -> TokenIds:
    """The ids of one row, which `where` names for errors; raises UserError for anything else."""
    given = value if isinstance(value, list) else [value]
    if any(type(id) is not int or not 0 <= id < LARGEST_ID for id in given):
        raise UserError(
            f"{where} holds no token ids",
            remedy="each row must have a list of whole numbers, 0 or more",
        )
    return TokenIds(tuple(given))


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalRows(Rows):
    """Rows of local files: one file, a folder or a pattern."""

    builder: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    """Further arguments of the builder."""
    suffixes: ClassVar[tuple[str, ...]]

    path: str = field(metadata={"key": False})
    """A file, a folder or a quoted pattern; its content is in the key, not its place."""

    def identity(self) -> Json:
        return content(self.path, self.suffixes)

    def files(self) -> tuple[Path, ...]:
        """The files, none of which is empty; raises UserError otherwise."""
        files = find_files(self.path, self.suffixes)
        for file in files:
            if file.stat().st_size == 0:
                raise UserError(f"{file} is empty", remedy="give a file with rows in it")
        return files

    def documents(self, scratch: Path) -> Iterator[Document]:
        files = self.files()
        import datasets

        with readable(self.describe()):
            yield from self.from_rows(
                datasets.load_dataset(
                    self.builder,
                    data_files=[glob.escape(str(file)) for file in files],
                    split="train",
                    streaming=True,
                    cache_dir=str(scratch / "datasets"),
                    **self.options,
                )
            )

    def describe(self) -> str:
        return f"{self.builder} {Path(self.path).name}"


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Context that turns errors of `datasets` about content into a UserError and silences it."""
    import datasets

    verbosity = datasets.logging.get_verbosity()
    bars = datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(
            f"{what} cannot be read: {reason}",
            remedy="check the file, or name the dataset kind it is written for "
            "(text, json, parquet)",
        ) from error
    finally:
        datasets.logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()
