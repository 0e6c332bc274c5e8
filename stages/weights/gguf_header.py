"""Parse the header of a GGUF file, checking every length against the size of the file.

Libraries for this format trust the counts that they read: a file that lies about them can exhaust
the memory. So every file is walked here first, and only a sound one is handed to a library.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from pipeline.errors import UserError
from pipeline.outside import FileState, opened

REMEDY = "fetch or convert the file again"
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY, UINT32 = 8, 9, 4
KEPT = frozenset({"general.architecture", "general.name"})
MOST_KEYS, MOST_TENSORS, MOST_ELEMENTS = 100_000, 1_000_000, 4_000_000
INTEGERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
MOST = {
    **{"block_count": 2_000, "leading_dense_block_count": 2_000, "nextn_predict_layers": 2_000},
    **{"expert_count": 10_000, "expert_used_count": 10_000, "expert_shared_count": 10_000},
    **{"context_length": 1 << 28, "vocab_size": 1 << 24},
}
"""Limits of counts of the model, by the last part of the key: readers make lists so long."""
LONGEST_NAME, MOST_DIMENSIONS = 65_536, 4


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufTensor:
    """A stored tensor: `shape` in torch's order (rows first), `type` as ggml names its format."""

    name: str
    shape: tuple[int, ...]
    type: str
    start: int
    length: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufHeader:
    """Metadata and tensors of a GGUF file.

    `texts` has the metadata named in KEPT. `spans` gives the first byte of the entry of each
    metadata key and the byte after it, `table` those of the list of tensors.
    """

    path: Path
    state: FileState
    version: int
    texts: Mapping[str, str]
    spans: Mapping[str, tuple[int, int]]
    table: tuple[int, int]
    tensors: Mapping[str, GgufTensor]

    @property
    def size(self) -> int:
        return self.state.size

    @property
    def architecture(self) -> str:
        return self.texts["general.architecture"]


def read_gguf_header(path: Path) -> GgufHeader:
    """Walk the header of a GGUF file; UserError if the file is missing, truncated or malformed."""
    if not path.is_file():
        raise UserError(f"there is no file {path}", remedy="give the path of a .gguf file")
    try:
        with opened(path) as (file, state):
            if state.size < 24:
                raise UserError(f"{path} is cut off: it has only {state.size} bytes", remedy=REMEDY)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Walk(path=path, data=data, state=state).header()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


@dataclass(slots=True)
class _Walk:
    path: Path
    data: mmap.mmap
    state: FileState
    at: int = 0
    elements: int = 0

    @property
    def size(self) -> int:
        return self.state.size

    def header(self) -> GgufHeader:
        if self.take(4) != b"GGUF":
            self.fail("it does not begin with 'GGUF'")
        version, tensors, keys = self.unpack("<IQQ")
        if version not in (2, 3):
            self.fail(f"it is of version {version}, only 2 and 3 can be read")
        if keys > MOST_KEYS or tensors > MOST_TENSORS:
            self.fail(f"it announces {keys} metadata keys and {tensors} tensors")
        texts: dict[str, str] = {}
        spans: dict[str, tuple[int, int]] = {}
        alignment = 32
        for _ in range(keys):
            begin = self.at
            key = self.text(LONGEST_NAME)
            kind = self.unpack("<I")[0]
            if key in KEPT and kind == STRING:
                texts[key] = self.text(LONGEST_NAME)
            elif key == "general.alignment" and kind == UINT32:
                alignment = self.unpack("<I")[0]
            elif kind in INTEGERS and (most := MOST.get(key.rpartition(".")[2])) is not None:
                count = self.unpack(INTEGERS[kind])[0]
                if count > most:
                    self.fail(f"it has {key} {count}: no model has more than {most}")
            else:
                self.skip(kind)
            if key in spans:
                self.fail(f"it gives the key {key!r} twice")
            spans[key] = (begin, self.at)
        if not texts.get("general.architecture"):
            self.fail("it does not say its architecture")
        if alignment < 8 or alignment & (alignment - 1):
            self.fail(f"its alignment is {alignment}")
        begin = self.at
        entries = [self.tensor() for _ in range(tensors)]
        table = (begin, self.at)
        start = -(-self.at // alignment) * alignment
        placed = [self.place(start, *entry) for entry in entries]
        found = {tensor.name: tensor for tensor in placed}
        if len(found) < len(placed):
            self.fail("it gives the same tensor twice")
        return GgufHeader(
            path=self.path,
            state=self.state,
            version=version,
            texts=texts,
            spans=spans,
            table=table,
            tensors=found,
        )

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.text(LONGEST_NAME)
        count = self.unpack("<I")[0]
        if count > MOST_DIMENSIONS:
            self.fail(f"tensor {name!r} has {count} dimensions")
        shape = tuple(reversed(self.unpack(f"<{count}Q")))
        kind, offset = self.unpack("<IQ")
        return name, shape, kind, offset

    def place(
        self, start: int, name: str, shape: tuple[int, ...], kind: int, at: int
    ) -> GgufTensor:
        try:
            stored = GGMLQuantizationType(kind)
        except ValueError:
            self.fail(f"tensor {name!r} is of the unknown type {kind}")
        elements, width = GGML_QUANT_SIZES[stored]
        if not shape or shape[-1] % elements:
            self.fail(f"tensor {name!r} of shape {list(shape)} cannot be stored as {stored.name}")
        length = prod(shape) // elements * width
        if start + at + length > self.size:
            self.fail(
                f"tensor {name!r} ends at byte {start + at + length}, the file at {self.size}"
            )
        return GgufTensor(name=name, shape=shape, type=stored.name, start=start + at, length=length)

    def skip(self, kind: int) -> None:
        if kind in WIDTHS:
            self.take(WIDTHS[kind])
        elif kind == STRING:
            self.jump(self.unpack("<Q")[0])
        elif kind == ARRAY:
            self.skip_array()
        else:
            self.fail(f"a metadata value is of the unknown type {kind}")

    def skip_array(self) -> None:
        inner, count = self.unpack("<IQ")
        self.elements += count
        if self.elements > MOST_ELEMENTS:
            self.fail(f"its metadata has arrays of {self.elements} elements")
        if inner in WIDTHS:
            self.jump(count * WIDTHS[inner])
        elif inner == STRING:
            for _ in range(count):
                self.jump(self.unpack("<Q")[0])
        else:
            self.fail(f"a metadata array holds values of type {inner}")

    def text(self, longest: int) -> str:
        length = self.unpack("<Q")[0]
        if length > longest:
            self.fail(f"a name has {length} bytes")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            self.fail("a name is not UTF-8")

    def unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def take(self, count: int) -> bytes:
        before = self.at
        self.jump(count)
        return self.data[before : self.at]

    def jump(self, count: int) -> None:
        if self.at + count > self.size:
            self.fail("its header goes on after the end of the file: the file is cut off")
        self.at += count

    def fail(self, why: str) -> NoReturn:
        raise UserError(f"{self.path} is no valid GGUF file: {why}", remedy=REMEDY)
