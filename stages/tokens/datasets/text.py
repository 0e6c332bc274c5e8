"""Dataset of plain text files (`dataset=text`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.key import Json
from stages.tokens.dataset import Dataset, Document
from stages.tokens.dataset_files import content, find_files
from stages.tokens.split_text import check_part, take_part

SUFFIXES = (".txt", ".text", ".md", ".rst", ".raw")
SAMPLE_BY = ("document", "paragraph", "line")


@dataclass(frozen=True, kw_only=True, slots=True)
class Text(Dataset):
    """A UTF-8 text file, a folder of them, or a pattern.

    `sample_by` says what one document is: a whole file, a paragraph (ended by an empty line) or a
    line; it matters with `packing: false`. `part` takes the first half of all text, the second or
    all of it.
    """

    kind: ClassVar[str] = "text"

    path: str = field(metadata={"key": False})
    """A file, a folder or a quoted pattern; its content is in the key, not its place."""
    sample_by: str = "document"
    part: str = "all"

    def __post_init__(self) -> None:
        Dataset.__post_init__(self)
        check_part(self.part)
        if self.sample_by not in SAMPLE_BY:
            raise UserError(
                f"sample_by is {self.sample_by!r}",
                remedy=f"choose one of {', '.join(SAMPLE_BY)}",
            )

    def identity(self) -> Json:
        return content(self.path, SUFFIXES)

    def files(self) -> tuple[Path, ...]:
        return find_files(self.path, SUFFIXES)

    def documents(self, scratch: Path) -> Iterator[Document]:
        del scratch
        texts = [_read(path) for path in self.files()]
        for text in take_part(texts, self.part):
            if self.sample_by == "document":
                yield text
            else:
                yield from text.split("\n\n" if self.sample_by == "paragraph" else "\n")

    def describe(self) -> str:
        half = {"all": "", "calibration": ", first half", "held_out": ", second half"}[self.part]
        return f"text {Path(self.path).name}{half}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}",
            remedy="convert it, or use the dataset kind it is written for (json, parquet)",
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
