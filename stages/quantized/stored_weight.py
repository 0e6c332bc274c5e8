"""One weight as a checkpoint holds it: codes, and what turns them into numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.schemes.quant_args import QArgs

MX_BIAS = 127


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """The weight is ``(codes - zero_point) * scale``, in float32; rows are output channels.

    codes: [out, in], int8 for integers, else any float dtype that holds them. scale: as stored,
    [1] | [out, 1] | [out, groups] | [row blocks, column blocks]; uint8 are exponents of two
    (E8M0). zero_point: int8 like scale, None where all are zero. An outer float32 [1] either
    multiplies the scale (factor) or divides it (global_scale). columns: int64 [in], the group of
    every column where groups are not runs of neighbours.
    """

    grid: QArgs
    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None = None
    factor: Tensor | None = None
    global_scale: Tensor | None = None
    columns: Tensor | None = None

    def weight(self) -> Tensor:
        """The dequantized weight, float32 [out, in]; `codes` is left as it is."""
        scale = plain_scale(self.scale)
        if self.factor is not None:
            scale = scale * self.factor.float()
        if self.global_scale is not None:
            scale = scale / self.global_scale.float()
        weight = self.codes.to(torch.float32, copy=True)
        if self.zero_point is not None:
            weight.sub_(self._spread(self.zero_point.float()))
        return weight.mul_(self._spread(scale))

    def _spread(self, value: Tensor) -> Tensor:
        """One entry for every weight, or what broadcasts to that."""
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
    """A stored scale as float32 numbers: uint8 are exponents of two with a bias of 127."""
    if scale.dtype == torch.uint8:
        return torch.exp2(scale.float() - MX_BIAS)
    return scale.float()
