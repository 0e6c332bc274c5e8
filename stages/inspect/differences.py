"""Differences of one tensor between two checkpoints: codes, scales, decoded numbers, outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, sqrt

import torch
from torch import Tensor

from stages.quantized.stored_weight import Stored, plain_scale


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How many of `total` numbers are not the same; `largest`: their largest relative change."""

    different: int = 0
    total: int = 0
    largest: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            different=self.different + other.different,
            total=self.total + other.total,
            largest=max(self.largest, other.largest),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """Difference of one tensor or several. `codes` and `scales` are None where not comparable.

    `weights` counts decoded numbers that are not equal; `largest` is the largest absolute
    difference, `error` and `energy` the squared norms of the difference and of the first one.
    `output_error` and `output_energy` are tr(E G E^T) and tr(W G W^T) for the Gram matrix G of
    calibrated inputs, None without one.
    """

    weights: Counts
    largest: float = 0.0
    error: float = 0.0
    energy: float = 0.0
    codes: Counts | None = None
    scales: Counts | None = None
    output_error: float | None = None
    output_energy: float | None = None

    @property
    def relative(self) -> float:
        """Norm of the difference over the norm of the first."""
        return _root_ratio(self.error, self.energy)

    @property
    def output(self) -> float | None:
        """Relative error of the outputs, tr(E G E^T) / tr(W G W^T); None without statistics."""
        if self.output_error is None or self.output_energy is None:
            return None
        return self.output_error / self.output_energy if self.output_energy else 0.0

    def __add__(self, other: Change) -> Change:
        """Both together."""
        return Change(
            weights=self.weights + other.weights,
            largest=max(self.largest, other.largest),
            error=self.error + other.error,
            energy=self.energy + other.energy,
            codes=_sum(self.codes, other.codes),
            scales=_sum(self.scales, other.scales),
            output_error=_both(self.output_error, other.output_error),
            output_energy=_both(self.output_energy, other.output_energy),
        )


def _sum(one: Counts | None, other: Counts | None) -> Counts | None:
    return other if one is None else one if other is None else one + other


def _both(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _root_ratio(error: float, energy: float) -> float:
    if error == 0:
        return 0.0
    return sqrt(error / energy) if energy else inf


def decoded_change(one: Tensor, other: Tensor, gram: Tensor | None = None) -> Change:
    """The difference of two decoded tensors of one shape; gram: float32 [in, in] of their inputs.

    Numbers that are NaN in both count as equal; a difference that is not finite is infinite.
    """
    a, b = one.float(), other.float()
    unequal = (a != b) & ~(a.isnan() & b.isnan())
    different = int(unequal.sum())
    energy = float(a.double().square().sum())
    counts = Counts(different=different, total=a.numel())
    found = Change(weights=counts, energy=energy)
    if gram is not None and gram.shape[0] == a.shape[-1]:
        found = replace(found, output_error=0.0, output_energy=_through(a, gram))
    if not different:
        return found
    delta = torch.where(unequal, a - b, 0.0)
    largest = float(delta.abs().nan_to_num(nan=inf).max())
    found = replace(found, largest=largest, error=float(delta.double().square().sum()))
    if found.output_energy is None or gram is None:
        return found
    return replace(found, output_error=_through(delta, gram))


def _through(weight: Tensor, gram: Tensor) -> float:
    """tr(W G W^T)."""
    return float(((weight @ gram) * weight).double().sum())


def stored_change(one: Stored, other: Stored) -> tuple[Counts | None, Counts | None]:
    """Differences of codes, and of scales with what multiplies or divides them all.

    Codes are compared less their zero points, so that packing and the sign of integers do not
    count. None where the grids or shapes are not the same.
    """
    a, b = one.grid, other.grid
    codes = scales = None
    if (a.type, a.num_bits) == (b.type, b.num_bits) and one.codes.shape == other.codes.shape:
        different = int((_steps(one) != _steps(other)).sum())
        codes = Counts(different=different, total=one.codes.numel())
    if one.scale.shape == other.scale.shape:
        s, t = _whole_scale(one), _whole_scale(other)
        change = ((s - t).abs() / s.abs().clamp_min(torch.finfo(s.dtype).tiny)).nan_to_num(nan=inf)
        same = (s == t) | (s.isnan() & t.isnan())
        scales = Counts(
            different=int((~same).sum()),
            total=s.numel(),
            largest=float(torch.where(same, 0.0, change).max()) if s.numel() else 0.0,
        )
    return codes, scales


def _steps(stored: Stored) -> Tensor:
    codes = stored.codes.float()
    points = stored.zero_point
    return codes if points is None else codes - stored.spread(points.float())


def _whole_scale(stored: Stored) -> Tensor:
    """Scales with their factor or divisor, float64, which keeps them apart from rounding."""
    scale = plain_scale(stored.scale).double()
    if stored.factor is not None:
        scale = scale * stored.factor.double()
    if stored.global_scale is not None:
        scale = scale / stored.global_scale.double()
    return scale
