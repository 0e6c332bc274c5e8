"""Read one safetensors file: check its header against its size, read tensors by position.

The `safetensors` library parses and validates the header. The bytes are read with plain reads, into
fresh memory or a buffer that is reused, because the library's tensors keep the whole file mapped.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from pipeline.errors import UserError
from pipeline.outside import PinnedFile, state_of
from stages.weights.device_read import Staging
from stages.weights.source import BITS, TensorSpec

if TYPE_CHECKING:
    from io import FileIO

    from torch import Tensor

LONGEST_HEADER = 100_000_000  # the format's own limit
MOST_DIMENSIONS = 16
MOST_ELEMENTS = 2**60  # also of the other sizes where one is 0: strides are products of those
REMEDY = "fetch or convert the file again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Position of a tensor's bytes: `length` of them, `start` bytes into the file."""

    spec: TensorSpec
    start: int
    length: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """Parsed header of a safetensors file: the position of every tensor by name.

    Its tensors are read from `file` while that is in the state in which the header was read.
    """

    file: PinnedFile
    size: int
    places: Mapping[str, Place]

    @property
    def path(self) -> Path:
        return self.file.path


class Scratch:
    """One buffer that is reused for tensors of which only the latest is needed.

    The system zeroes fresh memory page by page: on a virtual machine that can take longer than
    reading a file from the page cache into it.
    """

    def __init__(self) -> None:
        self._buffer: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)

    def take(self, size: int) -> NDArray[np.uint8]:
        """`size` bytes of arbitrary content; what was taken earlier is overwritten."""
        if len(self._buffer) < size:
            self._buffer = np.empty(0, dtype=np.uint8)  # free the old one before the new one
            self._buffer = np.empty(size, dtype=np.uint8)
        return self._buffer[:size]


def read_header(file: Path | PinnedFile) -> Header:
    """Parse and check the header of a safetensors file.

    A path is pinned to the state in which it is found. Raises UserError if the file is missing,
    truncated or malformed, or holds an unknown dtype, FileChanged if it is not in its state.
    """
    path = file if isinstance(file, Path) else file.path
    if not path.is_file():
        raise UserError(f"there is no file {path}", remedy=REMEDY)
    pinned = file if isinstance(file, PinnedFile) else PinnedFile(path, state_of(path))
    try:
        with pinned.open() as raw:
            size, length = _sizes(path, raw)
            places = _parsed(path, raw, 8 + length)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    return Header(file=pinned, size=size, places=places)


def read_tensors(header: Header, names: Iterable[str], *, device: str) -> dict[str, Tensor]:
    """Copies of the named tensors of one file, in the order of `names`."""
    wanted = [header.places[name] for name in names]
    found: dict[str, Tensor] = {}
    staging = None
    if device != "cpu":
        staging = Staging(max((place.length for place in wanted), default=0))
    try:
        with header.file.open() as file:
            for place in sorted(wanted, key=lambda place: place.start):
                if staging is None:
                    found[place.spec.name] = _read(file, place)
                else:
                    found[place.spec.name] = _read_to(device, file, place, staging)
    except OSError as error:
        raise UserError(f"{header.path} cannot be read: {error.strerror or error}") from error
    return {place.spec.name: found[place.spec.name] for place in wanted}


def read_into(
    header: Header, name: str, scratch: Scratch, rows: tuple[int, int] | None = None
) -> Tensor:
    """One tensor, or `rows` (start, stop) of it, in `scratch`; valid until that is reused."""
    place = header.places[name]
    if rows is not None:
        start, stop = rows
        size = place.length // max(1, place.spec.shape[0])
        spec = replace(place.spec, shape=(stop - start, *place.spec.shape[1:]))
        first = place.start + start * size
        place = Place(spec=spec, start=first, length=(stop - start) * size)
    try:
        with header.file.open() as file:
            return _read(file, place, scratch)
    except OSError as error:
        raise UserError(f"{header.path} cannot be read: {error.strerror or error}") from error


def read_pieces(header: Header, name: str, size: int) -> Iterator[memoryview]:
    """The bytes of one tensor, `size` at a time, in a buffer that is reused."""
    place = header.places[name]
    buffer = memoryview(bytearray(min(size, place.length)))
    try:
        with header.file.open() as file:
            file.seek(place.start)
            left = place.length
            while left:
                count = file.readinto(buffer[: min(size, left)])
                if not count:
                    raise UserError(f"{file.name} ends inside {name!r}", remedy=REMEDY)
                yield buffer[:count]
                left -= count
    except OSError as error:
        raise UserError(f"{header.path} cannot be read: {error.strerror or error}") from error


def copy_into(header: Header, name: str, target: int, start: int, size: int) -> int:
    """Copy the bytes of one tensor to position `start` of the open file `target`.

    Within the kernel where it can, which shares blocks on file systems that do; else `size` at a
    time. Returns the position after them. Raises UserError for a truncated or unreadable file, and
    OSError where the target cannot be written.
    """
    place = header.places[name]
    end = start + place.length
    if _copied_by_kernel(header, place, target, start):
        return end
    for piece in read_pieces(header, name, size):
        view = piece
        while len(view):  # one write takes at most 2 GiB
            count = os.pwrite(target, view, start)
            view, start = view[count:], start + count
    return end


def _copied_by_kernel(header: Header, place: Place, target: int, start: int) -> bool:
    """Whether copy_file_range did it all. Where it did not, plain reads and writes tell why."""
    done = 0
    with suppress(OSError), header.file.open() as file:
        while done < place.length and hasattr(os, "copy_file_range"):
            count = os.copy_file_range(
                file.fileno(), target, place.length - done, place.start + done, start + done
            )
            if not count:
                break
            done += count
    return done == place.length


def _sizes(path: Path, file: FileIO) -> tuple[int, int]:
    """Size of the file and length of its header, checked so that no library reads past the end."""
    size = os.fstat(file.fileno()).st_size
    first = file.read(8)
    if len(first) < 8:
        raise UserError(f"{path} is cut off: it has only {size} bytes", remedy=REMEDY)
    length: int = struct.unpack("<Q", first)[0]
    if length > LONGEST_HEADER:
        raise UserError(
            f"{path} is no safetensors file: it announces a header of {length} bytes", remedy=REMEDY
        )
    if 8 + length > size:
        raise UserError(
            f"{path} is cut off: it has {size} bytes, its header alone takes {8 + length}",
            remedy=REMEDY,
        )
    return size, length


def _parsed(path: Path, raw: FileIO, start: int) -> dict[str, Place]:
    """The places of all tensors; the library opens the file itself, by the open descriptor."""
    same = Path(f"/dev/fd/{raw.fileno()}")  # what is at the path may be another file by now
    try:
        with safe_open(same if same.exists() else path, framework="np") as file:  # without torch
            return _places(file, start)
    except (SafetensorError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} is no valid safetensors file: {error}", remedy=REMEDY) from error
    except KeyError as error:
        raise UserError(f"{path} holds a tensor of the unknown dtype {error.args[0]}") from error


def _places(file: Any, start: int) -> dict[str, Place]:
    """Positions from sizes: the library rejects headers whose tensors overlap or leave gaps."""
    places: dict[str, Place] = {}
    for name in file.offset_keys():
        piece = file.get_slice(name)
        shape, dtype = tuple(piece.get_shape()), piece.get_dtype()
        if len(shape) > MOST_DIMENSIONS or prod(max(1, size) for size in shape) > MOST_ELEMENTS:
            raise SafetensorError(f"{name!r} cannot have the shape {list(shape)}")
        if not name.isprintable():
            raise SafetensorError(f"the name {name!r} has control characters")
        if dtype == "F4" and shape[-1] % 2:  # torch holds two in an element
            raise SafetensorError(f"{name!r} of shape {list(shape)} cannot be packed in pairs")
        length = prod(shape) * BITS[dtype] // 8
        places[name] = Place(
            spec=TensorSpec(name=name, shape=shape, dtype=dtype), start=start, length=length
        )
        start += length
    return places


def _read(file: FileIO, place: Place, scratch: Scratch | None = None) -> Tensor:
    import torch

    if scratch is None:
        data = torch.empty(place.length, dtype=torch.uint8)
    else:
        data = torch.from_numpy(scratch.take(place.length))
    file.seek(place.start)
    _fill(file, place, data.numpy().data)
    return _typed(data, place)


def _read_to(device: str, file: FileIO, place: Place, staging: Staging) -> Tensor:
    file.seek(place.start)
    data = staging.fill(place.length, device, lambda view: _fill(file, place, view))
    return _typed(data, place)


def _fill(file: FileIO, place: Place, view: memoryview) -> None:
    """Read the next bytes of the file into all of `view`."""
    done = 0
    while done < len(view):  # one read returns at most 2 GiB
        count = file.readinto(view[done:])
        if not count:
            raise UserError(f"{file.name} ends inside {place.spec.name!r}", remedy=REMEDY)
        done += count


def _typed(data: Tensor, place: Place) -> Tensor:
    """The bytes of a tensor, uint8 [length], in its dtype and shape."""
    from stages.weights.dtypes import torch_dtype

    shape = place.spec.shape
    if place.spec.dtype == "F4":  # torch packs two into an element
        shape = (*shape[:-1], shape[-1] // 2)
    return data.view(torch_dtype(place.spec.dtype)).reshape(shape)


def will_need(header: Header, names: Iterable[str]) -> int:
    """Ask the system to read tensors into its page cache; the bytes that it was asked for.

    Nothing happens where it cannot be asked, or the file is gone: who reads it will tell.
    """
    places = [header.places[name] for name in names if name in header.places]
    advise = getattr(os, "posix_fadvise", None)
    if advise is None:
        return 0
    with suppress(OSError), open(header.path, "rb", buffering=0) as file:
        for place in places:
            advise(file.fileno(), place.start, place.length, os.POSIX_FADV_WILLNEED)
        return sum(place.length for place in places)
    return 0
