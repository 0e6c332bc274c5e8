"""Codes, scales and zero points of one stored weight, and its dequantization."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.schemes.quant_args import QArgs

MX_BIAS = 127
SIGNED = (torch.float32, torch.float16, torch.bfloat16)
"""Dtypes of scales that readers take with their sign; that of an E4M3 scale hardware drops."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A quantized weight ``(codes - zero_point) * scale`` in float32; rows are output channels.

    codes: [out, in], int8 for integers, else any float dtype that holds them. scale: as stored,
    [1] | [out, 1] | [out, groups] | [row blocks, column blocks]; uint8 are exponents of two
    (E8M0). zero_point: int8 like scale, None if all are zero. A float32 [1] may multiply the scale
    (factor) or divide it (global_scale). columns: int64 [in], the group of every column if groups
    are not runs of neighbours (act-order). columns_scale: [in], what engines multiply inputs with
    first, and the weight's columns here.
    """

    grid: QArgs
    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None = None
    factor: Tensor | None = None
    global_scale: Tensor | None = None
    columns: Tensor | None = None
    columns_scale: Tensor | None = None

    def weight(self) -> Tensor:
        """The dequantized weight, float32 [out, in]; `codes` stays unchanged."""
        scale = plain_scale(self.scale)
        if self.factor is not None:
            scale = scale * self.factor.float()
        if self.global_scale is not None:
            scale = scale / self.global_scale.float()
        weight = self.codes.to(torch.float32, copy=True)
        if self.zero_point is not None:
            weight.sub_(self.spread(self.zero_point.float()))
        weight.mul_(self.spread(scale))
        return weight if self.columns_scale is None else weight.mul_(self.columns_scale.float())

    def spread(self, value: Tensor) -> Tensor:
        """Expand scales or zero points to [out, in], or to a shape that broadcasts to it."""
        rows, columns = self.codes.shape
        if value.numel() == 1:
            return value.reshape(1, 1)
        if self.columns is not None:
            return value[:, self.columns]
        if self.grid.block_structure is not None:
            height, width = self.grid.block_structure
            tall = value.repeat_interleave(height, dim=0)[:rows]
            return tall.repeat_interleave(width, dim=1)[:, :columns]
        if value.shape[1] == 1:
            return value
        width = self.grid.group_size or columns
        return value.repeat_interleave(width, dim=1)[:, :columns]


def plain_scale(scale: Tensor) -> Tensor:
    """A stored scale in float32; uint8 are exponents of two with a bias of 127 (E8M0)."""
    if scale.dtype == torch.uint8:
        return torch.exp2(scale.float() - MX_BIAS)
    return scale.float()
