"""Write a safetensors file tensor by tensor, copying one piece of a tensor at a time."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from stages.weights.source import BITS, TensorSpec, WeightSource

if TYPE_CHECKING:
    from torch import Tensor

METADATA = {"format": "pt"}


def copy_tensors(path: Path, specs: Sequence[TensorSpec], source: WeightSource) -> None:
    """Copy the tensors that `specs` describe from `source` to a new file, two at a time."""
    gather(path, [(source, spec) for spec in specs])


def gather(path: Path, tensors: Iterable[tuple[WeightSource, TensorSpec]]) -> None:
    """Copy tensors of several sources to one new file, two tensors at a time.

    Between plain files the bytes do not pass through this process where the system copies them.
    """
    found = {spec.name: (source, spec) for source, spec in tensors}

    def place(spec: TensorSpec, file: int, start: int) -> int:
        return copied(found[spec.name][0], spec.name, file, start)

    _write(path, [spec for _, spec in found.values()], place, threads=2)


def copied(source: WeightSource, name: str, file: int, start: int) -> int:
    """Copy a tensor's bytes to position `start` of an open file; the position after them."""
    copy: Callable[[str, int, int], int] | None = getattr(source, "copy_into", None)
    if copy is not None:
        return copy(name, file, start)
    return write_at(file, start, pieces(source, name))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors in memory to a new file."""
    specs = [spec_of(name, tensor) for name, tensor in tensors.items()]

    def place(spec: TensorSpec, file: int, start: int) -> int:
        return write_at(file, start, [bytes_of(tensors[spec.name])])

    _write(path, specs, place, threads=1)


def spec_of(name: str, tensor: Tensor) -> TensorSpec:
    """The spec that a tensor in memory has in a file."""
    from stages.weights.dtypes import dtype_name

    return TensorSpec(name=name, shape=tuple(tensor.shape), dtype=dtype_name(tensor.dtype))


def pieces(source: WeightSource, name: str) -> Iterator[memoryview]:
    """The bytes of a tensor in order; each piece is valid until the next one is requested.

    Sources over plain files yield them as they read; from others the whole tensor is one piece.
    """
    read_pieces: Callable[[str], Iterator[memoryview]] | None = getattr(source, "pieces", None)
    if read_pieces is not None:
        yield from read_pieces(name)
    else:
        yield bytes_of(source.read([name])[name])


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, in order."""
    import torch

    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    view: memoryview = flat.numpy().data
    return view


def layout(specs: Iterable[TensorSpec]) -> tuple[bytes, dict[str, int]]:
    """The header of a file with these tensors, and the position at which each one starts."""
    # wide elements first, so that every tensor starts at a multiple of its element size
    ordered = sorted(specs, key=lambda spec: (-BITS[spec.dtype], spec.name))
    entries: dict[str, object] = {"__metadata__": METADATA}
    starts, end = {}, 0
    for spec in ordered:
        starts[spec.name], start, end = end, end, end + spec.bytes
        entries[spec.name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [start, end],
        }
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    first = struct.pack("<Q", len(header)) + header
    return first, {name: len(first) + start for name, start in starts.items()}


def write_at(file: int, start: int, pieces: Iterable[memoryview]) -> int:
    """Write pieces to an open file from position `start` on; returns the position after them."""
    for piece in pieces:
        while len(piece):  # one write takes at most 2 GiB
            count = os.pwrite(file, piece, start)
            start, piece = start + count, piece[count:]
    return start


def _write(
    path: Path,
    specs: Iterable[TensorSpec],
    write: Callable[[TensorSpec, int, int], int],
    threads: int,
) -> None:
    by_name = {spec.name: spec for spec in specs}
    first, starts = layout(by_name.values())

    def place(name: str) -> None:
        end = write(by_name[name], file.fileno(), starts[name])
        if end != starts[name] + by_name[name].bytes:
            raise ValueError(f"{path.name}: the tensors have other sizes than was said")

    with open(path, "wb", buffering=0) as file, ThreadPoolExecutor(threads) as pool:
        write_at(file.fileno(), 0, [memoryview(first)])
        for _ in pool.map(place, starts):
            pass


def link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it if the file system cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
