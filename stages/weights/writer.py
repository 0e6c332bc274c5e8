"""Writing a safetensors file tensor by tensor: no more than a piece of one is copied at a time."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.weights.source import BITS, TensorSpec, WeightSource

if TYPE_CHECKING:
    from torch import Tensor

METADATA = {"format": "pt"}


def copy_tensors(path: Path, specs: Sequence[TensorSpec], source: WeightSource) -> None:
    """Write the tensors that `specs` describe, as `source` has them."""
    _write(path, specs, lambda spec: pieces(source, spec.name))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of this process, by name."""
    from stages.weights.dtypes import dtype_name

    specs = [
        TensorSpec(name=name, shape=tuple(tensor.shape), dtype=dtype_name(tensor.dtype))
        for name, tensor in tensors.items()
    ]
    _write(path, specs, lambda spec: [_bytes(tensors[spec.name])])


def pieces(source: WeightSource, name: str) -> Iterator[memoryview]:
    """The bytes of a tensor in order; each piece is good until the next one is asked for.

    Sources of plain files give them as they read; of others the whole tensor is one piece.
    """
    own: Callable[[str], Iterator[memoryview]] | None = getattr(source, "pieces", None)
    if own is not None:
        yield from own(name)
    else:
        yield _bytes(source.read([name])[name])


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    view: memoryview = flat.numpy().data
    return view


def _write(
    path: Path, specs: Iterable[TensorSpec], pieces_of: Callable[[TensorSpec], Iterable[memoryview]]
) -> None:
    # wide elements first: so every tensor begins at a multiple of its element's size
    ordered = sorted(specs, key=lambda spec: (-BITS[spec.dtype], spec.name))
    entries: dict[str, object] = {"__metadata__": METADATA}
    end = 0
    for spec in ordered:
        start, end = end, end + spec.bytes
        entries[spec.name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [start, end],
        }
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb", buffering=0) as file:
        file.write(struct.pack("<Q", len(header)))
        file.write(header)
        for spec in ordered:
            for piece in pieces_of(spec):
                _write_all(file.write, piece)
        if file.tell() != 8 + len(header) + end:
            raise ValueError(f"{path.name}: the tensors have other sizes than was said")


def _write_all(write: Callable[[memoryview], int | None], piece: memoryview) -> None:
    while len(piece):  # one write takes at most 2 GiB
        piece = piece[write(piece) or 0 :]
