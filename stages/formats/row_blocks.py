"""Apply element-wise operations, packing and unpacking to a weight in blocks of rows.

Operations on a whole weight would copy it a dozen times, and fresh memory from the system takes
longer than the arithmetic; a few rows stay in a core's caches. The resulting bytes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from stages.compute.row_tiles import row_tiles
from stages.schemes.layouts import MAIN
from stages.schemes.protocols import WeightFormat, spans

ELEMENTS = 1 << 19
"""Approximate elements of a block: in float32 small enough for the allocator to reuse."""
ELSEWHERE = 1 << 25
"""Approximate elements of a block on another device than a CPU: 128 MiB in float32."""
WORD = 32
"""Bits of a word that holds codes; zero points of this many rows fill whole words."""
SHARED = ("weight_scale", "weight_zero_point")

Parts = dict[str, Tensor]


def by_rows(
    weight: Tensor, work: Callable[[int, int], None], args: WeightFormat | None = None
) -> None:
    """Call ``work(start, stop)`` for blocks of rows of a weight [out, in], concurrently if large.

    With `args`, no two blocks share a scale, unless one scale serves the whole weight. Elsewhere
    than on a CPU, blocks are larger and come one after the other: they bound the memory.
    """
    rows = weight.shape[0]
    if large(weight):
        row_tiles(rows, row_step(args, *weight.shape), work)
    elif not weight.is_cpu and weight.numel() > ELSEWHERE:
        step = row_step(args, rows, weight[0].numel(), ELSEWHERE)
        for start in range(0, rows, step):
            work(start, min(start + step, rows))
    else:
        work(0, rows)


def decompress_by_rows(
    stored: Mapping[str, Tensor], args: WeightFormat, decompress: Callable[[Parts], Tensor]
) -> Tensor:
    """Apply `decompress` to blocks of the stored tensors, one after the other.

    Raises ValueError if scales or zero points do not have the rows that the weight needs.
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


def large(weight: Tensor) -> bool:
    """Whether a weight [out, in] is worth splitting: on the CPU, and larger than a block."""
    return weight.is_cpu and weight.dim() == 2 and weight.numel() > ELEMENTS


def row_step(
    args: WeightFormat | None, rows: int, columns: int, elements: int | None = None
) -> int:
    """Rows of a block: a multiple of the rows that share a scale, and of a word's zero points."""
    most = ELEMENTS if elements is None else elements
    height = WORD
    if args is not None and args.strategy == "block":
        height = spans(args, rows, columns)[0]
    return max(1, most // (height * max(1, columns))) * height


def parts_of_rows(parts: Mapping[str, Tensor], args: WeightFormat, start: int, stop: int) -> Parts:
    """Some rows of a weight, packed or not, with their scales and zero points."""
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


def share(tensor: Tensor, args: WeightFormat, start: int, stop: int) -> Tensor:
    """The scales or zero points of some rows: a view, or all if one serves all rows.

    For packed zero points [words, groups], `start` is a multiple of `WORD`.
    """
    if not _is_cut(tensor, args):
        return tensor
    first = start * args.num_bits // WORD if tensor.dtype == torch.int32 else start // _height(args)
    return tensor[first : _shared(tensor, args, stop)]


def _shared(tensor: Tensor, args: WeightFormat, rows: int) -> int:
    """Number of rows of scales or zero points that `rows` rows of a weight have."""
    if not _is_cut(tensor, args):
        return len(tensor)
    if tensor.dtype == torch.int32:
        return -(-rows * args.num_bits // WORD)
    return -(-rows // _height(args))


def _height(args: WeightFormat) -> int:
    return args.block_structure[0] if args.block_structure is not None else 1


def _is_cut(tensor: Tensor, args: WeightFormat) -> bool:
    return args.strategy != "tensor" and tensor.dim() >= 2
