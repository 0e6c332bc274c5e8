"""Mutations of sound files, the same for the same seed: of bytes, of lines, of JSON data."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from tests.fuzz import NUMBERS, TEXTS

WORDS = (b"{", b"}", b"[", b"]", b'"', b":", b",", b"-1", b"1e999", b"null", b"\x00", b"\xff\xfe")
MARKS = ("- ", "  ", ": ", "!!map ", "&a ", "*a", "| ", "'", "#", "? ", "[", "{", "${x}", "\t")

Mutation = Callable[[bytes, Random], bytes]


def some_bytes(data: bytes, draw: Random, most: int | None = None) -> bytes:
    """One to three places changed, in the first `most` bytes."""
    out = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(max(1, min(len(out), most or len(out))))
        length = draw.choice((1, 1, 2, 8, 40))
        how = draw.randrange(6)
        if how == 0 and out:
            out[min(at, len(out) - 1)] ^= 1 << draw.randrange(8)
        elif how == 1:
            out[at : at + length] = draw.randbytes(length)
        elif how == 2:
            out[at:at] = draw.choice(WORDS)
        elif how == 3:
            del out[at : at + length]
        elif how == 4:
            out[at:at] = out[at : at + length] * draw.randint(1, 4)
        else:
            del out[at + draw.randrange(1 + len(out) - min(at, len(out))) :]
    return bytes(out)


def some_lines(data: bytes, draw: Random) -> bytes:
    """Lines of a text lost, doubled, moved or changed."""
    lines = data.decode().split("\n")
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(lines))
        how = draw.randrange(5)
        if how == 0 and len(lines) > 1:
            del lines[at]
        elif how == 1:
            lines[at:at] = lines[at : at + draw.randint(1, 3)]
        elif how == 2:
            place = draw.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:place] + draw.choice(MARKS) + lines[at][place:]
        elif how == 3:
            head, _, _ = lines[at].partition(":")
            lines[at] = f"{head}: {_value(draw, 0)!r:.60}"
        else:
            lines[at] = " " * draw.randrange(9) + lines[at].lstrip()
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    return some_bytes(text, draw) if draw.random() < 0.1 else text


def some_json(data: bytes, draw: Random) -> bytes:
    """Values of JSON data replaced, lost, doubled, renamed or nested."""
    if draw.random() < 0.15:
        return some_bytes(data, draw)
    whole = {"": json.loads(data)}
    for _ in range(draw.randint(1, 3)):
        places = [*_places(whole)]
        holder, key = draw.choice(places)
        how = draw.randrange(8)
        if how == 0 and holder is not whole:
            del holder[key]
        elif how == 1 and isinstance(holder, dict) and holder is not whole:
            holder[draw.choice(TEXTS)] = holder.pop(key)
        elif how == 2 and isinstance(holder[key], list):
            holder[key] = holder[key] * draw.randint(0, 3)
        elif how == 3:
            holder[key] = 0
        elif how == 4:
            holder[key] = _nested(holder[key], draw.choice((2, 70, 300)))
        else:
            holder[key] = _value(draw, 2)
    return json.dumps(whole[""]).encode()


def some_json_lines(data: bytes, draw: Random) -> bytes:
    """One line changed as JSON, or the text."""
    if draw.random() < 0.3:
        return some_bytes(data, draw)
    lines = data.rstrip(b"\n").split(b"\n")
    at = draw.randrange(len(lines))
    lines[at] = some_json(lines[at], draw)
    return b"\n".join(lines) + b"\n"


def some_header(data: bytes, draw: Random) -> bytes:
    """The header of a safetensors file changed as JSON, its length mostly right, or any byte."""
    length = struct.unpack("<Q", data[:8])[0]
    if draw.random() < 0.4:
        return some_bytes(data, draw, most=8 + length)
    header = some_json(data[8 : 8 + length], draw)
    stated = len(header) if draw.random() < 0.9 else draw.choice((0, 1, 2**31, 2**63, length))
    return struct.pack("<Q", stated) + header + data[8 + length :]


def some_start(data: bytes, draw: Random) -> bytes:
    """The first bytes of a binary file changed, where its metadata is."""
    return some_bytes(data, draw, most=1500)


def some_end(data: bytes, draw: Random) -> bytes:
    """The last bytes of a binary file changed, where Parquet has its metadata, or any."""
    if draw.random() < 0.2:
        return some_bytes(data, draw)
    cut = max(0, len(data) - 900)
    return data[:cut] + some_bytes(data[cut:], draw)


def _value(draw: Random, depth: int) -> Any:
    """Any JSON value that a reader may not expect."""
    choice = draw.randrange(5 if depth else 3)
    if choice == 0:
        return draw.choice(TEXTS)
    if choice == 1:
        return draw.choice(NUMBERS)
    if choice == 2:
        return draw.choice((None, True, False))
    if choice == 3:
        return [_value(draw, depth - 1) for _ in range(draw.randrange(4))]
    return {draw.choice(TEXTS): _value(draw, depth - 1) for _ in range(draw.randrange(4))}


def _nested(value: Any, depth: int) -> Any:
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])
