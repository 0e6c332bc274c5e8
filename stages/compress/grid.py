"""What a weight may become: the code grid, the scale grid, and who shares a scale.

Every number format here is one rule, "round to nearest, ties to even, with a step that doubles
with every binade above the first": integers have one step everywhere, E2M1, E4M3 and bfloat16 are
small floats, E8M0 scales keep no mantissa. One rule serves torch and the compiled kernels alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stages.schemes.protocols import scale_shape, spans

if TYPE_CHECKING:
    from compressed_tensors.quantization import QuantizationArgs

ROW_STRATEGIES = frozenset({"channel", "group", "tensor_group"})  # no scale spans two rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounding:
    """Values ``k * step * max(binade, 2**floor(log2|x|))``, clamped to [low, high]."""

    binade: float
    step: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Which codes and scales a weight [out, in] may use, and how scales are laid out."""

    num_bits: int
    type: str  # "int" | "float"
    symmetric: bool
    strategy: str  # "tensor" | "channel" | "group" | "block" | "tensor_group"
    group_size: int | None
    block_structure: tuple[int, int] | None
    codes: Rounding
    scales: Rounding
    scale_dtype: torch.dtype  # what ``Quantized.scale`` is held in

    def scale_shape(self, rows: int, columns: int) -> tuple[int, ...]:
        """Shape of ``weight_scale`` for a weight [rows, columns]."""
        return scale_shape(self, rows, columns)

    def width(self, columns: int) -> int:
        """How many neighbouring columns share a scale."""
        return spans(self, 1, columns)[1]


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
    original: what rounds to ``weight`` where it is packed instead, because it says more than
    ``weight`` does: FP4 has a code for -0, whose sign a zero of ``weight`` no longer tells.
    losses: float32 [out, 2], e H e^T of each row's error and w H w^T of the row itself, from a
    solver that has them at hand.
    """

    weight: Tensor
    scale: Tensor
    zero_point: Tensor | None
    global_scale: Tensor | None
    original: Tensor | None = None
    losses: Tensor | None = None


def grid_of(args: QuantizationArgs, dtype: torch.dtype = torch.bfloat16) -> Grid:
    """The grid of a weight's QuantizationArgs; ``dtype`` is what plain scales are stored in.

    Raises ValueError for a strategy or a float width that no weight can have.
    """
    strategy = str(getattr(args.strategy, "value", args.strategy))
    kind = str(getattr(args.type, "value", args.type))
    if strategy not in ROW_STRATEGIES | {"tensor", "block"}:
        raise ValueError(f"weights cannot use strategy {strategy!r}")
    block = args.block_structure
    fp8_scales = args.scale_dtype == torch.float8_e4m3fn
    return Grid(
        num_bits=args.num_bits,
        type=kind,
        symmetric=args.symmetric,
        strategy=strategy,
        group_size=args.group_size,
        block_structure=None if block is None else (block[0], block[1]),
        codes=_codes(kind, args.num_bits),
        scales=_scales(args, dtype),
        scale_dtype=torch.float32 if fp8_scales else dtype,
    )


def codes_of(args: QuantizationArgs) -> Rounding:
    """The codes that values of `args` are rounded to; ValueError for an unknown float width."""
    return _codes(str(getattr(args.type, "value", args.type)), args.num_bits)


def _codes(kind: str, num_bits: int) -> Rounding:
    if kind == "int":
        half = 2.0 ** (num_bits - 1)
        return Rounding(binade=2.0**23, step=2.0**-23, low=-half, high=half - 1)
    if num_bits == 4:
        return Rounding(binade=1.0, step=0.5, low=-6.0, high=6.0)
    if num_bits == 8:
        return Rounding(binade=2.0**-6, step=0.125, low=-448.0, high=448.0)
    raise ValueError(f"float weights have 4 or 8 bits, not {num_bits}")


def _scales(args: QuantizationArgs, dtype: torch.dtype) -> Rounding:
    if args.scale_dtype == torch.uint8 and (args.type, args.group_size) == ("float", 32):
        return Rounding(binade=2.0**-126, step=1.0, low=2.0**-126, high=2.0**127)
    stored = args.scale_dtype or dtype
    if not stored.is_floating_point:
        raise ValueError(f"scales of dtype {stored} need groups of 32 floats of 4 or 8 bits")
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


def expand(qparams: QParams, grid: Grid, rows: int) -> tuple[Tensor, Tensor]:
    """Effective scale and zero point of every row: float32 [rows, scales per row], each.

    The effective scale is the stored one over the global scale, divided in float32 as
    compressed-tensors does.
    """
    scale = qparams.scale.float()
    if qparams.global_scale is not None:
        scale = scale / qparams.global_scale
    zero = torch.zeros_like(scale) if qparams.zero_point is None else qparams.zero_point.float()
    return _spread(scale, grid, rows), _spread(zero, grid, rows)


def _spread(value: Tensor, grid: Grid, rows: int) -> Tensor:
    if grid.strategy == "tensor":
        return value.reshape(1, 1).expand(rows, 1)
    if grid.block_structure is not None:
        return value.repeat_interleave(grid.block_structure[0], dim=0)[:rows]
    return value


def column_scale(grid: Grid, columns: int, device: torch.device | str = "cpu") -> Tensor:
    """Which scale of its row every column uses: int64 [columns]."""
    return torch.arange(columns, device=device) // grid.width(columns)
