"""Keep the source's own codes and scales: the same quantized weight in another layout."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from stages.compress.grid import Grid, Quantized
from stages.compress.layer.state import LayerState
from stages.compress.solvers.numerical_error import NumericalError
from stages.formats.codes import encode
from stages.formats.input_params import InputParams
from stages.quantized.compatibility import why_not
from stages.quantized.source import QuantizedSource
from stages.quantized.stored_weight import Stored, plain_scale
from stages.schemes.quant_args import QArgs
from stages.weights.cut_source import CutSource, Part
from stages.weights.joined_source import JoinedSource
from stages.weights.source import WeightSource

ANEW = "say modifier=rtn or modifier=gptq to quantize it anew, or put it in scheme.ignore"


def stored_of(layer: LayerState, module: str) -> Stored | None:
    """How the source stores a module of `layer`; None where it is dense."""
    source, _, part = _below(layer, module)
    if part is not None:
        return source.stored_part(part) if isinstance(source, QuantizedSource) else None
    place = _place(layer, module)
    return None if place is None else place[0].stored(place[1])


def _below(layer: LayerState, module: str) -> tuple[WeightSource | None, str, Part | None]:
    """The source under all views, a module's name there, and of what it is a part, if it is one."""
    prefix = next(spec.prefix for spec in layer.subgraph.linears if spec.name == module)
    source, part = layer.source, None
    while isinstance(source, CutSource | JoinedSource):
        if isinstance(source, CutSource):
            part = source.part(f"{prefix}.weight") or part
        source = source.source
    return source, prefix, part


def _place(layer: LayerState, module: str) -> tuple[QuantizedSource, str] | None:
    """Where the source has a module quantized: the source, and the module's name there."""
    source, prefix, _ = _below(layer, module)
    if not isinstance(source, QuantizedSource) or prefix not in source.modules:
        return None
    return source, prefix


def kept(stored: Stored | None, grid: Grid, *, round_scales: bool) -> Quantized:
    """The weight as the source stores it, with the scales that `grid` wants.

    The result dequantizes to the same float32 numbers, with two exceptions: scales may be rounded
    if `round_scales` says so; and a factor (ModelOpt's weight_scale_2) becomes a divisor, its
    reciprocal in float32, which is off by at most one unit in the last place. Raises
    NumericalError where the grid has no such numbers, and for a dense source (None).
    """
    if stored is None:
        raise _unfit("the source has it dense")
    rows, columns = stored.codes.shape
    wanted = _args_of(grid)
    reason = why_not(stored.grid, wanted, columns)
    if reason is not None:
        raise _unfit(reason)
    if stored.columns_scale is not None:
        raise _unfit("its inputs are multiplied by a scale of their own first (pre_quant_scale)")
    if stored.columns is not None:
        raise _unfit("the columns of its groups are not neighbours (desc_act)")
    scale = _spread(plain_scale(stored.scale), stored, grid, rows, columns)
    scale = _held(scale, grid, stored.scale.dtype, round_scales=round_scales)
    zero_point = None
    if not grid.symmetric:
        zero = stored.zero_point
        zero = torch.zeros_like(stored.scale, dtype=torch.int8) if zero is None else zero
        zero_point = _spread(zero.to(torch.int8), stored, grid, rows, columns)
    divisor = stored.global_scale
    if stored.factor is not None:
        divisor = reciprocal(stored.factor)
    laid_out = replace(
        stored,
        grid=wanted,
        scale=scale,
        zero_point=zero_point,
        factor=None,
        global_scale=divisor,
    )
    return Quantized(
        weight=laid_out.weight(),
        codes=encode(stored.codes, grid, signed_zero=True),
        scale=scale,
        zero_point=zero_point,
        global_scale=divisor,
    )


def unusual(scale: Tensor) -> str:
    """What is unusual about scales that another writer chose, in words; "" if nothing is."""
    if scale.dtype == torch.uint8:
        return ""  # exponents of two
    kinds = {"negative": scale.float() < 0, "0": scale.float() == 0}
    return " or ".join(kind for kind, entries in kinds.items() if bool(entries.any()))


def casts(scale: Tensor, args: QArgs, dtype: torch.dtype) -> bool:
    """Whether a reader that casts scales of integers to `dtype`, the model's, rounds these."""
    if args.type != "int" or scale.dtype == dtype:
        return False
    return not torch.equal(scale.to(dtype).float(), scale.float())


def _args_of(grid: Grid) -> QArgs:
    """What a source that has its weights on this grid says of them."""
    block = grid.block_structure
    scale_dtype = grid.scale_dtype
    return QArgs(
        num_bits=grid.num_bits,
        type=grid.type,
        symmetric=grid.symmetric,
        strategy=grid.strategy,
        group_size=grid.group_size,
        block_structure=None if block is None else list(block),
        scale_dtype=None if scale_dtype is None else str(scale_dtype).removeprefix("torch."),
    )


def reciprocal(factor: Tensor) -> Tensor:
    """A float32 whose own reciprocal is `factor`, as engines take it, if there is one.

    Else the nearest to 1 / factor. float32 [1].
    """
    near = 1 / factor.float().reshape(1)
    around = [near, *(torch.nextafter(near, torch.full_like(near, end)) for end in (0.0, 3e38))]
    return next((value for value in around if bool(1 / value == factor)), near)


def kept_inputs(layer: LayerState, module: str, args: QArgs | None) -> InputParams:
    """The source's calibrated parameters of a module's input; nothing is measured.

    Raises NumericalError where the format wants some that the source does not have.
    """
    if args is None or args.dynamic is True:
        return InputParams()
    place = _place(layer, module)
    found = InputParams() if place is None else place[0].inputs(place[1])
    if args.strategy == "tensor_group" and found.global_scale is not None:
        return InputParams(global_scale=found.global_scale)
    if args.strategy == "tensor" and found.scale is not None:
        zero = found.zero_point
        if not args.symmetric and zero is None:
            zero = torch.zeros(1, dtype=torch.int8)
        return InputParams(scale=found.scale, zero_point=None if args.symmetric else zero)
    raise NumericalError(
        name=module,
        reason="the scheme has calibrated inputs, and the source has no scale for them",
        remedy="take a scheme without them (fp8_dynamic, nvfp4a16), or calibrate: modifier=rtn",
    )


def _spread(value: Tensor, stored: Stored, grid: Grid, rows: int, columns: int) -> Tensor:
    """One value for each scale of `grid`, from one for each scale of the source."""
    shape = grid.scale_shape(rows, columns)
    if tuple(value.shape) == shape:
        return value
    wide = value.reshape(1, 1) if value.numel() == 1 else value
    times = (stored.grid.group_size or columns) // grid.width(columns)
    return wide.repeat_interleave(times, dim=1).expand(rows, -1)[:, : shape[1]].contiguous()


def _held(scale: Tensor, grid: Grid, given: torch.dtype, *, round_scales: bool) -> Tensor:
    """Scales in the dtype that the format stores: the model's, where none other is fixed.

    Where the model's dtype would round them, scales of 8-bit floats stay float32, as vLLM and
    SGLang hold them whatever the model's dtype is, and `given` float16 ones float16 (`cast_by`).
    """
    if grid.scale_dtype is not None:
        return scale
    narrow = scale.to(grid.dtype)
    if torch.equal(narrow.float(), scale) or round_scales:
        return narrow
    if grid.type == "float":
        return scale
    if given == torch.float16:
        return scale.half()
    name = str(grid.dtype).removeprefix("torch.")
    raise NumericalError(
        name="",
        reason=f"its scales are no {name} numbers, and the format stores them in the model's dtype",
        remedy="say modifier.keep.round_scales=true to round them (by 0.4 % at most), or "
        "modifier=rtn to quantize anew",
    )


def _unfit(reason: str) -> NumericalError:
    return NumericalError(name="", reason=reason, remedy=ANEW)
