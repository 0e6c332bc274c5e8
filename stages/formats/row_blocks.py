"""What is done to every entry of a weight alone, done to some rows at a time.

Whole weights would be copied in memory a dozen times, and memory fresh from the system takes longer
than the arithmetic; a few rows stay in a core's caches. Every byte is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from stages.compute.row_tiles import row_tiles
from stages.schemes.layouts import MAIN
from stages.schemes.protocols import WeightFormat, spans

ELEMENTS = 1 << 19
"""About so many of a weight at once: in float32 less than the allocator keeps apart."""
WORD = 32
"""Bits of a word that holds codes: zero points of so many rows fill whole words."""
SHARED = ("weight_scale", "weight_zero_point")

Parts = dict[str, Tensor]


def large(weight: Tensor) -> bool:
    """Whether a weight [out, in] is worth cutting: in a CPU's memory, and more than a few rows."""
    return weight.is_cpu and weight.dim() == 2 and weight.numel() > ELEMENTS


def by_rows(
    weight: Tensor, work: Callable[[int, int], None], args: WeightFormat | None = None
) -> None:
    """Call ``work(start, stop)`` for parts of a weight [out, in], side by side where it is large.

    With `args` no part shares a scale with another, but where one is for the whole weight.
    """
    rows = weight.shape[0]
    if large(weight):
        row_tiles(rows, row_step(args, *weight.shape), work)
    else:
        work(0, rows)


def row_step(args: WeightFormat | None, rows: int, columns: int) -> int:
    """How many rows are done at once: whole blocks where those share a scale, and words."""
    height = WORD
    if args is not None and args.strategy == "block":
        height = spans(args, rows, columns)[0]
    return max(1, ELEMENTS // (height * max(1, columns))) * height


def share(tensor: Tensor, args: WeightFormat, start: int, stop: int) -> Tensor:
    """The scales or zero points of some rows: a view, or all where one is for all rows.

    Packed zero points [words, groups] are those of whole words: `start` is a multiple of `WORD`.
    """
    if not _is_cut(tensor, args):
        return tensor
    first = start * args.num_bits // WORD if tensor.dtype == torch.int32 else start // _height(args)
    return tensor[first : _shared(tensor, args, stop)]


def parts_of_rows(parts: Mapping[str, Tensor], args: WeightFormat, start: int, stop: int) -> Parts:
    """Some rows of a weight, stored or not, with the scales that are theirs."""
    found = dict(parts)
    for name in MAIN:
        if name in parts:
            found[name] = parts[name][start:stop]
    for name in SHARED:
        if name in parts:
            found[name] = share(parts[name], args, start, stop)
    if "weight_shape" in parts:
        found["weight_shape"] = torch.tensor([stop - start, int(parts["weight_shape"][1])])
    return found


def compress_by_rows(
    given: Parts,
    args: WeightFormat,
    compress: Callable[[Parts], Mapping[str, Tensor]],
) -> Parts:
    """What `compress` makes of a weight and its parameters; tiles run side by side."""
    done: dict[int, Mapping[str, Tensor]] = {}

    def tile(start: int, stop: int) -> None:
        done[start] = compress(parts_of_rows(given, args, start, stop))

    by_rows(given["weight"], tile, args)
    tiles = [done[start] for start in sorted(done)]
    cut = {name for name in SHARED if name in given and _is_cut(given[name], args)}
    joined = {name for name in tiles[0] if name in cut.union(MAIN)}
    return {
        name: torch.cat([tile[name] for tile in tiles]) if name in joined else value
        for name, value in tiles[0].items()
    }


def decompress_by_rows(
    stored: Mapping[str, Tensor], args: WeightFormat, decompress: Callable[[Parts], Tensor]
) -> Tensor:
    """The weight that `decompress` makes of stored tensors, one tile after the other.

    Raises ValueError where scales or zero points are not those of so many rows.
    """
    rows, columns = next(stored[name] for name in MAIN if name in stored).shape
    if "weight_packed" in stored:
        columns = int(stored["weight_shape"][1]) if "weight_shape" in stored else 2 * columns
    for name in SHARED:
        if name in stored and len(stored[name]) != _shared(stored[name], args, rows):
            raise ValueError(f"{name} has {len(stored[name])} rows for a weight of {rows}")
    step = row_step(args, rows, columns)
    first = decompress(parts_of_rows(stored, args, 0, min(rows, step)))
    if rows <= step:
        return first
    whole = first.new_empty((rows, *first.shape[1:]))
    whole[:step] = first
    for start in range(step, rows, step):
        stop = min(rows, start + step)
        whole[start:stop] = decompress(parts_of_rows(stored, args, start, stop))
    return whole


def _shared(tensor: Tensor, args: WeightFormat, rows: int) -> int:
    """How many rows the scales or zero points of so many rows have."""
    if not _is_cut(tensor, args):
        return len(tensor)
    if tensor.dtype == torch.int32:
        return -(-rows * args.num_bits // WORD)
    return -(-rows // _height(args))


def _height(args: WeightFormat) -> int:
    return args.block_structure[0] if args.block_structure is not None else 1


def _is_cut(tensor: Tensor, args: WeightFormat) -> bool:
    return args.strategy != "tensor" and tensor.dim() >= 2
