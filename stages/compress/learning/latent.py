"""Learned rounding of one weight: latent codes, straight-through gradients, Adam.

After AdaRound (arXiv:2004.10568) and SignRound (arXiv:2309.05516), which learn an offset within the
two codes around W/s from rounding to nearest. Here the latent is the code itself: it starts at W/s
clamped to within `reach` of the code that a solver chose (so that at first every weight is what the
solver gave), may move on to any other code, and is rounded straight through. A solver such as GPTQ
leaves many weights far from W/s; with a reach next to 1/2 they would all sit at the edge of their
code, and the first steps would undo its work. Codes of formats with
uneven steps (E2M1 and other floats) are counted by their place among the values of the format, so
that neighbours are one apart everywhere. The scale of each group is learned as a factor of the
solver's, rounded as the checkpoint stores it, straight through as well. Adam
(arXiv:1412.6980) takes the place of signed steps.

Notation: W [out, in] the weight, k its latent codes, v(k) the value of the nearest code (minus the
zero point), s the scale of its group, r the factor; Q = v(k) s r is the weight that is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from stages.compress.grid import (
    ROW_STRATEGIES,
    Grid,
    QParams,
    Quantized,
    Rounding,
    by_scale_of_row,
    expand,
    round_scale,
    round_to,
)
from stages.formats.codes import decode, encode

EDGE = 0.49
"""How far beyond the format's outermost codes, in codes, a latent may go."""
BETAS = (0.9, 0.95)
"""Adam's decay of the mean and of the mean square of gradients."""
EPSILON = 1e-12


@cache
def ladder(codes: Rounding) -> Tensor:
    """All values of a float format in rising order, float32 [n]."""
    unit = codes.binade * codes.step
    steps = round(codes.high / unit)
    values: Tensor = torch.unique(round_to(torch.arange(-steps, steps + 1) * unit, codes))
    return values


def place_of(values: Tensor, rungs: Tensor) -> Tensor:
    """The place of `values` among `rungs` [n], linear between two of them; same shape, float32."""
    right = torch.searchsorted(rungs, values.contiguous()).clamp_(1, len(rungs) - 1)
    low, high = rungs[right - 1], rungs[right]
    return right - 1 + (values - low) / (high - low)


@dataclass(kw_only=True, slots=True)
class Adam:
    """Adam for one tensor: float32 moments of the shape of the tensor."""

    mean: Tensor
    square: Tensor
    count: int = 0

    @classmethod
    def of(cls, tensor: Tensor) -> Adam:
        """No steps taken yet."""
        return cls(mean=torch.zeros_like(tensor), square=torch.zeros_like(tensor))

    def step(self, tensor: Tensor, gradient: Tensor, rate: float) -> None:
        """One step against the gradient, in place."""
        self.count += 1
        self.mean.lerp_(gradient, 1 - BETAS[0])
        self.square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        unbiased = (self.square / (1 - BETAS[1] ** self.count)).sqrt_().add_(EPSILON)
        tensor.addcdiv_(self.mean, unbiased, value=-rate / (1 - BETAS[0] ** self.count))


@dataclass(kw_only=True, slots=True)
class Latent:
    """The latent codes and scale factors of one weight, and how they move.

    codes: float32 [out, in]; ratio: float32 of the shape of the solver's scale; found: what the
    solver gave; rungs: see `ladder`, None for integers; low, high: places of the codes that the
    format has. learns_scale: whether factors are learned: scales of E8M0 are powers of two, and one
    that spans several rows is left alone.
    """

    grid: Grid
    found: Quantized
    codes: Tensor
    ratio: Tensor
    scale: Tensor
    zero: Tensor
    rungs: Tensor | None
    low: float
    high: float
    learns_scale: bool
    adam: Adam
    scale_adam: Adam = field(repr=False)

    @classmethod
    def start(cls, weight: Tensor, found: Quantized, grid: Grid, *, reach: float = 0.35) -> Latent:
        """The latent of `weight` [out, in] that rounds to what a solver `found` for it.

        reach: how far from the solver's code, in codes, it starts at most; below 1/2.
        """
        if found.codes is None:
            raise ValueError("the solver gave no codes")
        rows, columns = weight.shape
        params = QParams(
            scale=found.scale, zero_point=found.zero_point, global_scale=found.global_scale
        )
        scale, zero = expand(params, grid, rows)
        rungs = None if grid.type == "int" else ladder(grid.codes).to(weight.device)
        exact = by_scale_of_row(torch.div, weight.float(), scale, grid)
        code = decode(found.codes)
        if rungs is None:
            exact = by_scale_of_row(torch.add, exact, zero, grid)
        else:
            exact, code = place_of(exact, rungs), place_of(code, rungs)
        codes = torch.minimum(torch.maximum(exact, code - reach), code + reach)
        ratio = torch.ones(found.scale.shape, device=weight.device)
        whole = columns == scale.shape[1] * grid.width(columns)
        return cls(
            grid=grid,
            found=found,
            codes=codes,
            ratio=ratio,
            scale=scale,
            zero=zero,
            rungs=rungs,
            low=grid.codes.low if rungs is None else 0.0,
            high=grid.codes.high if rungs is None else len(rungs) - 1.0,
            learns_scale=whole
            and grid.strategy in ROW_STRATEGIES
            and grid.scale_dtype != torch.uint8,
            adam=Adam.of(codes),
            scale_adam=Adam.of(ratio),
        )

    def nearest(self) -> Tensor:
        """Places of the nearest codes, float32 [out, in]."""
        return self.codes.round().clamp_(self.low, self.high)

    def values(self, nearest: Tensor) -> Tensor:
        """Values of codes at their places, minus the zero point: float32 [out, in]."""
        if self.rungs is not None:
            return self.rungs[nearest.int()]
        if self.found.zero_point is None:
            return nearest
        return by_scale_of_row(torch.sub, nearest, self.zero, self.grid)

    def stored_scale(self) -> Tensor:
        """The learned scale as the checkpoint stores it, in the shape and dtype of the solver's."""
        scale = self.found.scale.float()
        learned = round_scale(scale * self.ratio, scale, self.grid.scales)
        return torch.where(self.ratio == 1, scale, learned).to(self.found.scale.dtype)

    def effective_scale(self) -> Tensor:
        """The scale of every row as a reader of the checkpoint has it: float32 [out, groups]."""
        if not self.learns_scale:
            return self.scale
        params = QParams(
            scale=self.stored_scale(), zero_point=None, global_scale=self.found.global_scale
        )
        return expand(params, self.grid, len(self.codes))[0]

    def weight(self) -> Tensor:
        """Q: float32 [out, in]."""
        values = self.values(self.nearest())
        return by_scale_of_row(torch.mul, values, self.effective_scale(), self.grid)

    def gradients(self, dQ: Tensor) -> tuple[Tensor, Tensor | None]:
        """dL/dk [out, in] and dL/dr (None where none is learned) from dL/dQ, float32 [out, in].

        Rounding is taken for the identity, and a float format's values for a line through the
        neighbours of the code.
        """
        nearest = self.nearest()
        by_code = by_scale_of_row(torch.mul, dQ, self.effective_scale(), self.grid)
        if self.rungs is not None:
            place = nearest.int()
            above = (place + 1).clamp_(max=len(self.rungs) - 1)
            below = (place - 1).clamp_(min=0)
            by_code *= (self.rungs[above] - self.rungs[below]) / (above - below)
        if not self.learns_scale:
            return by_code, None
        groups = self.scale.shape[1]
        by_scale = (dQ * self.values(nearest)).unflatten(1, (groups, -1)).sum(dim=2)
        return by_code, by_scale.mul_(self.scale).reshape(self.ratio.shape)

    def step(self, dQ: Tensor, *, rate: float, scale_rate: float) -> None:
        """One step of Adam, in place; latents stay within reach of the format's codes."""
        by_code, by_ratio = self.gradients(dQ)
        self.adam.step(self.codes, by_code, rate)
        self.codes.clamp_(self.low - EDGE, self.high + EDGE)
        if by_ratio is not None and scale_rate:
            self.scale_adam.step(self.ratio, by_ratio, scale_rate)

    def chosen(self) -> Quantized:
        """What is stored of the latent as it is now."""
        nearest, scale = self.nearest(), self.effective_scale()
        values = self.values(nearest)
        return Quantized(
            weight=by_scale_of_row(torch.mul, values, scale, self.grid),
            codes=encode(nearest if self.rungs is None else values, self.grid),
            scale=self.stored_scale() if self.learns_scale else self.found.scale,
            zero_point=self.found.zero_point,
            global_scale=self.found.global_scale,
        )
