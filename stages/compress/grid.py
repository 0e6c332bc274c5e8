"""Number format of a weight: the codes, the scales, and which elements share a scale.

Every number format here is one rule, "round to nearest, ties to even, with a step that doubles
with every binade above the first": integers have one step everywhere, E2M1, E2M3, E4M3 and
bfloat16 are small floats, E8M0 scales keep no mantissa. One rule serves torch and the compiled
kernels alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stages.schemes.protocols import WeightFormat, scale_shape, spans

ROW_STRATEGIES = frozenset({"channel", "group", "tensor_group"})  # no scale spans two rows


class Rounding(NamedTuple):
    """Values ``k * step * max(binade, 2**floor(log2|x|))``, clamped to [low, high]."""

    binade: float
    step: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Quantization grid of a weight [out, in]: which codes and scales it may use, and their layout.

    :func:`grid_of` builds it from a scheme, once for each module; observers and solvers know the
    format by nothing else. dtype: the checkpoint's, in which scales are computed and, unless the
    format fixes `scale_dtype`, stored. codes, scales: the values that both may take.
    negative_scales: whether scales may have either sign. scale_rule: how powers of two are chosen,
    see :mod:`stages.compress.observers.power_scale`; None as compressed-tensors does.
    """

    num_bits: int
    type: str  # "int" | "float"
    symmetric: bool
    strategy: str  # "tensor" | "channel" | "group" | "block" | "tensor_group"
    group_size: int | None
    block_structure: tuple[int, int] | None
    scale_dtype: torch.dtype | None  # float8_e4m3fn under a global scale, uint8 for E8M0 exponents
    zp_dtype: torch.dtype | None
    dtype: torch.dtype
    codes: Rounding
    scales: Rounding
    negative_scales: bool = False
    scale_rule: str | None = None

    def signed(self) -> Grid:
        """The same with scales of either sign, where that is of use: see `negative_scales`.

        Symmetric integers have one code more below zero than above it: with a negative scale it
        serves the largest weights whatever their sign is. Other formats stay as they are.
        """
        wide = self.scale_dtype is None or self.scale_dtype.itemsize > 1  # else without a sign
        return replace(self, negative_scales=self.type == "int" and self.symmetric and wide)

    def spans(self, rows: int, columns: int) -> tuple[int, int]:
        """How many neighbouring rows and columns share a scale."""
        return spans(self, rows, columns)

    def scale_shape(self, rows: int, columns: int) -> tuple[int, ...]:
        """Shape of ``weight_scale`` for a weight [rows, columns]."""
        return scale_shape(self, rows, columns)

    def width(self, columns: int) -> int:
        """How many neighbouring columns share a scale."""
        return self.spans(1, columns)[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class QParams:
    """Quantization parameters as a checkpoint stores them; see :class:`Quantized`."""

    scale: Tensor
    zero_point: Tensor | None
    global_scale: Tensor | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantized:
    """The weight a solver chose, exactly representable in the checkpoint.

    weight: float32 [out, in], ``(code - zero_point) * scale`` with the stored scale.
    scale: [out, groups] | [out, 1] | [1] | [row blocks, column blocks]; the checkpoint's dtype, or
    float32 holding E4M3 values under a global scale.
    zero_point: int8, the scale's shape, None when symmetric. global_scale: float32 [1] or None.
    codes: [out, in], what is stored: int8, float8_e4m3fn (E2M3 too) or uint8 (E2M1), see
    :mod:`stages.formats.codes`. None from a solver that gives a weight alone: it gets the nearest
    ones, once, from `stages.compress.solvers.rtn.with_codes`.
    original: what is rounded to those codes in place of ``weight``, because it says more than
    ``weight`` does: FP4 has a code for -0, whose sign a zero of ``weight`` no longer tells.
    losses: float32 [out, 2], e H e^T of each row's error and w H w^T of the row itself, from a
    solver that has them at hand.
    """

    weight: Tensor
    scale: Tensor
    zero_point: Tensor | None
    global_scale: Tensor | None
    codes: Tensor | None = None
    original: Tensor | None = None
    losses: Tensor | None = None


def grid_of(weights: WeightFormat, dtype: torch.dtype = torch.bfloat16) -> Grid:
    """The grid of a weight's format: our QArgs, or compressed-tensors' QuantizationArgs.

    dtype: what scales are computed in, and stored in where the format fixes nothing else: the
    model's. Raises ValueError for a strategy or a float width that no weight can have.
    """
    strategy = str(getattr(weights.strategy, "value", weights.strategy))
    kind = str(getattr(weights.type, "value", weights.type))
    if strategy not in ROW_STRATEGIES | {"tensor", "block"}:
        raise ValueError(f"weights cannot use strategy {strategy!r}")
    block, scale_dtype = weights.block_structure, _torch_dtype(weights.scale_dtype)
    return Grid(
        num_bits=weights.num_bits,
        type=kind,
        symmetric=weights.symmetric,
        strategy=strategy,
        group_size=weights.group_size,
        block_structure=None if block is None else (block[0], block[1]),
        scale_dtype=scale_dtype,
        zp_dtype=_torch_dtype(weights.zp_dtype),
        dtype=dtype,
        codes=_codes(kind, weights.num_bits),
        scales=_scales(kind, weights.group_size, scale_dtype, dtype),
        scale_rule=getattr(weights, "scale_rule", None),
    )


def _torch_dtype(dtype: Any) -> torch.dtype | None:
    """A dtype given by its name, as configs have it, or as it is."""
    found: torch.dtype | None = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    return found


def _codes(kind: str, num_bits: int) -> Rounding:
    if kind == "int":
        half = 2.0 ** (num_bits - 1)
        return Rounding(binade=2.0**23, step=2.0**-23, low=-half, high=half - 1)
    if num_bits == 4:
        return Rounding(binade=1.0, step=0.5, low=-6.0, high=6.0)
    if num_bits == 6:
        return Rounding(binade=1.0, step=0.125, low=-7.5, high=7.5)
    if num_bits == 8:
        return Rounding(binade=2.0**-6, step=0.125, low=-448.0, high=448.0)
    raise ValueError(f"float weights have 4, 6 or 8 bits, not {num_bits}")


def _scales(
    kind: str, group_size: int | None, scale_dtype: torch.dtype | None, dtype: torch.dtype
) -> Rounding:
    if scale_dtype == torch.uint8 and (kind, group_size) == ("float", 32):
        return Rounding(binade=2.0**-126, step=1.0, low=2.0**-126, high=2.0**127)
    stored = scale_dtype or dtype
    if not stored.is_floating_point:
        raise ValueError(f"scales of dtype {stored} need groups of 32 floats of 4, 6 or 8 bits")
    info = torch.finfo(stored)
    # float8 scales reach down to their subnormals, other dtypes have range to spare
    low = info.tiny * info.eps if info.bits == 8 else max(info.tiny, 2.0**-126)
    return Rounding(binade=max(info.tiny, 2.0**-126), step=info.eps, low=low, high=info.max)


def round_to(x: Tensor, rounding: Rounding) -> Tensor:
    """Nearest value of ``rounding`` to float32 ``x``, ties to even mantissa; any shape."""
    x = x.float().clamp(rounding.low, rounding.high)
    power = (x.contiguous().view(torch.int32) & 0x7F800000).view(torch.float32)
    unit = power.clamp(min=rounding.binade) * rounding.step
    return torch.round(x / unit) * unit


def round_scale(x: Tensor, like: Tensor, rounding: Rounding) -> Tensor:
    """Nearest scale of ``rounding`` to float32 ``x``, with the sign of ``like``; any shape.

    ``rounding`` holds positive scales alone: one that may be negative keeps the sign it has.
    """
    sign = torch.where(like < 0, -1.0, 1.0)
    return round_to(x * sign, rounding) * sign


def expand(qparams: QParams, grid: Grid, rows: int) -> tuple[Tensor, Tensor]:
    """Effective scale and zero point of every row: float32 [rows, scales per row], each.

    The effective scale is the stored one over the global scale, divided in float32 as
    compressed-tensors does.
    """
    scale = qparams.scale.float()
    if qparams.global_scale is not None:
        scale = scale / qparams.global_scale
    zero = torch.zeros_like(scale) if qparams.zero_point is None else qparams.zero_point.float()
    return expand_rows(scale, grid, rows), expand_rows(zero, grid, rows)


def expand_rows(value: Tensor, grid: Grid, rows: int) -> Tensor:
    """Scales or zero points of every row, [rows, scales per row], from one for each scale."""
    if grid.strategy == "tensor":
        return value.reshape(1, 1).expand(rows, 1)
    if grid.block_structure is not None:
        return value.repeat_interleave(grid.block_structure[0], dim=0)[:rows]
    return value


def by_scale_of_row(
    operation: Callable[[Tensor, Tensor], Tensor], values: Tensor, per_row: Tensor, grid: Grid
) -> Tensor:
    """operation(values, p) with the p of every entry: values [rows, in], per_row [rows, groups]."""
    columns, groups = values.shape[1], per_row.shape[1]
    if values.numel() and columns == groups * grid.width(columns):
        return operation(values.unflatten(1, (groups, -1)), per_row.unsqueeze(2)).flatten(1)
    # blocks at the edge are smaller
    return operation(values, per_row[:, column_scale(grid, columns, values.device)])


def column_scale(grid: Grid, columns: int, device: torch.device | str = "cpu") -> Tensor:
    """Which scale of its row every column uses: int64 [columns]."""
    return torch.arange(columns, device=device) // grid.width(columns)
