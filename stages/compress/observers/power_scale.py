"""Power-of-two scales (E8M0) of MX blocks, by the rules that writers have.

For the largest magnitude a of a block, the largest code c (E2M1: 6, E2M3: 7.5, E4M3: 448) and its
exponent e = floor(log2 c):

floor: 2^(floor(log2 a) - e), the OCP MX specification's example; clips what is beyond c.
even: the same for a rounded to as many mantissa bits as a code has, ties away from zero.
rceil: the least power of two under which nothing is clipped, 2^ceil(log2(a / c)).
search: that of floor or one of its two neighbours, by the error of the block (`scale_search`).

For E2M1 compressed-tensors' rule is `even`; for E4M3 it rounds to the one bit of E2M1 all the same,
so that a = 448 gets 2. It stays the library's own arithmetic (`compressed_tensors_math`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.compress.grid import Grid

COMPRESSED_TENSORS, SEARCH = "compressed_tensors", "search"
MANTISSA = {4: 1, 6: 3, 8: 3}
"""Mantissa bits of a code by its width."""


def power_scale(largest: Tensor, grid: Grid) -> Tensor:
    """Scales of blocks by their largest magnitudes, any shape, in the grid's dtype.

    A block of zeros gets the scale of one. What is not finite stays as it is. Raises ValueError for
    the rules that need more than the largest magnitude.
    """
    rule, size = grid.scale_rule, largest.float()
    if rule not in ("floor", "even", "rceil"):
        raise ValueError(f"no scale follows from the largest magnitude under the rule {rule!r}")
    exponent = _floor(_rounded(size, MANTISSA[grid.num_bits]) if rule == "even" else size, grid)
    if rule == "rceil":
        one = torch.ones_like(size)
        exponent = exponent + (size > torch.ldexp(one * grid.codes.high, exponent)).int()
    return _scales(exponent, largest, grid)


def neighbours(largest: Tensor, grid: Grid) -> Tensor:
    """The scale of floor, twice and half of it: [*shape, 3], in the grid's dtype.

    Twice is where rceil and even differ from floor; half is for blocks with an outlier.
    """
    exponent = _floor(largest.float(), grid)[..., None]
    steps = torch.tensor([0, 1, -1], dtype=exponent.dtype, device=exponent.device)
    return _scales(exponent + steps, largest[..., None].expand(*largest.shape, 3), grid)


def _floor(size: Tensor, grid: Grid) -> Tensor:
    """floor(log2 size) - floor(log2 c), int32; that of 1 for 0."""
    sound = torch.where(torch.isfinite(size) & (size > 0), size, torch.ones_like(size))
    reach = torch.tensor(grid.codes.high, device=size.device)
    return (torch.frexp(sound).exponent - torch.frexp(reach).exponent).int()


def _rounded(size: Tensor, bits: int) -> Tensor:
    """Magnitudes rounded to so many mantissa bits, ties away from zero; float32, not negative."""
    rounded = size.contiguous().view(torch.int32) + (1 << (22 - bits))
    return torch.where(torch.isfinite(size), rounded.view(torch.float32), size)


def _scales(exponent: Tensor, largest: Tensor, grid: Grid) -> Tensor:
    info = torch.finfo(grid.dtype)
    low = max(-126, int(torch.frexp(torch.tensor(info.tiny)).exponent) - 1)
    high = int(torch.frexp(torch.tensor(info.max)).exponent) - 1
    exponent = exponent.clamp(low, high)
    scale = torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent).to(grid.dtype)
    return torch.where(torch.isfinite(largest), scale, largest.to(grid.dtype))
