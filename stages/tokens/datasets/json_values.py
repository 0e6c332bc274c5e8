"""Read JSON and JSON Lines value by value, with no more than one value in memory."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
from collections.abc import Callable, Iterator, Mapping
from io import TextIOWrapper
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import IO, Any, cast

from pipeline.errors import UserError
from pipeline.plain_file import open_plain

CHUNK = 1 << 20
"""Characters that are read at a time."""

LONGEST = 1 << 23
"""Characters of one value; a longer one is an error, so that no file exhausts the memory:
parsed, a value can take a hundred times as many bytes."""

NEAR_END = 16
"""A fault so near the end of what was read may be a number or a word that goes on."""

SPACE = re.compile(r"[ \t\r\n]*")
COMPRESSED: Mapping[bytes, Callable[[Path], IO[bytes]]] = {
    b"\x1f\x8b": lambda path: cast(IO[bytes], gzip.open(path)),
    b"BZh": lambda path: cast(IO[bytes], bz2.open(path)),
    b"\xfd7zXZ\x00": lambda path: cast(IO[bytes], lzma.open(path)),
}
"""First bytes of a compressed file, and what reads it."""


class _NotJson(Exception):
    """Why a file is not JSON, in words."""


def json_values(path: Path) -> Iterator[Any]:
    """The items of a file that is one list, or else its values, such as the objects of its lines.

    UTF-8, also compressed by gzip, bzip2 or xz. Each value stands for itself: keys and types may
    differ between them. Raises UserError, with the number of the value, for anything else.
    """
    try:
        with _opened(path) as file:
            yield from _values(TextIOWrapper(file, encoding="utf-8-sig").read)
    except _NotJson as error:
        raise _unreadable(path, str(error)) from error
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"it is not UTF-8: {error.reason}") from error
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, reason: str) -> UserError:
    return UserError(
        f"json {path.name} cannot be read: {reason}",
        remedy="check the file, or name the dataset kind it is written for (text, json, parquet)",
    )


def _opened(path: Path) -> IO[bytes]:
    with open_plain(path) as file:
        start = file.read(8)
    for magic, opened in COMPRESSED.items():
        if start.startswith(magic):
            return opened(path)
    return path.open("rb")


def _values(read: Callable[[int], str]) -> Iterator[Any]:
    text = _Text(read)
    listed = text.peek() == "["
    if listed:
        text.at += 1
    number = 0
    while (mark := text.peek()) and not (listed and mark == "]"):
        if listed and number:
            if mark != ",":
                raise _NotJson(f"no comma before value {number} of its list")
            text.at += 1
            text.peek()
        yield text.value(number)
        number += 1
    if listed:
        if not mark:
            raise _NotJson(f"its list ends after value {number - 1} without ]")
        text.at += 1
        if text.peek():
            raise _NotJson("something follows its list")


class _Text:
    """A window of a text: `at` is the place that is read next."""

    def __init__(self, read: Callable[[int], str]) -> None:
        self.read, self.text, self.at, self.ended = read, "", 0, False

    def peek(self) -> str:
        """The next character that is no space, which is not passed; "" at the end."""
        while True:
            self.at = cast(re.Match[str], SPACE.match(self.text, self.at)).end()
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._more()

    def value(self, number: int) -> Any:
        """The value that begins here; `number` is for errors."""
        while True:
            try:
                value, self.at = JSONDecoder().raw_decode(self.text, self.at)
            except JSONDecodeError as error:
                goes_on = error.msg.startswith("Unterminated string")
                goes_on |= error.pos >= len(self.text) - NEAR_END
                if self.ended or not goes_on:
                    raise _NotJson(f"value {number}: {error.msg}") from error
                if len(self.text) - self.at > LONGEST:
                    raise _NotJson(f"value {number} is longer than {LONGEST} characters") from error
                self._more()
            except (RecursionError, ValueError) as error:
                raise _NotJson(f"value {number}: {error}") from error
            else:
                return value

    def _more(self) -> None:
        """Read on, as much as is there already, so that a long value is not tried too often."""
        rest = self.text[self.at :]
        more = self.read(max(CHUNK, min(len(rest), LONGEST - len(rest))))
        self.text, self.at, self.ended = rest + more, 0, not more
