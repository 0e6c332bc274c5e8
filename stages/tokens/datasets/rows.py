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
from pipeline.key import Json
from stages.tokens.dataset import Dataset, Document
from stages.tokens.dataset_files import content, find_files


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows(Dataset):
    """Rows whose documents are a column of text or a column of conversations.

    `messages_column`, if set, holds lists of {role, content} that go through the tokenizer's chat
    template; else `text_column` holds text. `max_documents` reads only the first rows, which makes
    very large datasets usable.
    """

    text_column: str = "text"
    messages_column: str | None = None
    max_documents: int | None = None

    def __post_init__(self) -> None:
        Dataset.__post_init__(self)
        if self.max_documents is not None and self.max_documents < 1:
            raise UserError(
                f"max_documents is {self.max_documents}",
                remedy="give 1 or more, or null for all",
            )

    def from_rows(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Document]:
        """The document of each row; rows without content are left out."""
        column = self.messages_column or self.text_column
        for i, row in enumerate(islice(rows, self.max_documents)):
            if column not in row:
                raise UserError(
                    f"{self.describe()} has no column {column!r}",
                    remedy=f"it has {', '.join(row)}: set dataset.text_column, or "
                    "dataset.messages_column for conversations",
                )
            value = row[column]
            if not value:
                continue
            if self.messages_column is None:
                if not isinstance(value, str):
                    raise UserError(
                        f"row {i} of {self.describe()} has no text in column {column!r} but a "
                        f"{type(value).__name__}",
                        remedy="name a column of text, or set dataset.messages_column for "
                        "conversations",
                    )
                yield value
            else:
                yield self._conversation(i, value)

    def _conversation(self, row: int, value: Any) -> Document:
        turns = value if isinstance(value, list) else [value]
        if not all(isinstance(t, Mapping) and {"role", "content"} <= t.keys() for t in turns):
            raise UserError(
                f"row {row} of {self.describe()} has no conversation in column "
                f"{self.messages_column!r}",
                remedy="each must be a list of {role, content}",
            )
        return [{name: item for name, item in t.items() if item is not None} for t in turns]


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalRows(Rows):
    """Rows of local files: one file, a folder or a pattern."""

    builder: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    path: str = field(metadata={"key": False})
    """A file, a folder or a quoted pattern; its content is in the key, not its place."""

    def identity(self) -> Json:
        return content(self.path, self.suffixes)

    def documents(self, scratch: Path) -> Iterator[Document]:
        files = find_files(self.path, self.suffixes)
        for file in files:
            if file.stat().st_size == 0:
                raise UserError(f"{file} is empty", remedy="give a file with rows in it")
        import datasets

        with readable(self.describe()):
            yield from self.from_rows(
                datasets.load_dataset(
                    self.builder,
                    data_files=[glob.escape(str(file)) for file in files],
                    split="train",
                    streaming=True,
                    cache_dir=str(scratch / "datasets"),
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
