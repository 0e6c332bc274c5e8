"""Read torchao checkpoints in safetensors, as transformers saves them: int8, float8, NVFP4, MX.

A weight is flattened into `_weight_qdata` and `_weight_scale`, with `_weight_zero_point` (integers)
and `_weight_per_tensor_scale` (NVFP4, which multiplies) beside them. What they are is seen by their
dtypes: int8 and float8_e4m3 [out, in] with float scales; float8_e4m3 or two E2M1 codes a byte, the
even column in the low bits, with E8M0 scales (MX, groups of 32); the same bytes with float8_e4m3
scales (NVFP4, groups of 16). The scales of NVFP4 and MX are laid out for NVIDIA's matrix units even
where the writer had none: tiles of 128 rows and 4 groups, padded with zeros, as 32 times 16 bytes.
Packed int4 is laid out for one kernel and is not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from stages.quantized.grids import MXFP4, MXFP8, NVFP4
from stages.quantized.source import Module, QuantizedSource, matrix, needed, shaped
from stages.schemes.quant_args import QArgs
from stages.weights.source import TensorSpec, WeightSource

if TYPE_CHECKING:
    from torch import Tensor

    from stages.quantized.stored_weight import Stored

CODES, SCALE, ZERO = "_weight_qdata", "_weight_scale", "_weight_zero_point"
FACTOR = "_weight_per_tensor_scale"
FLOATS = ("F32", "F16", "BF16")
FP4 = ("U8", "F4")
TILE = (128, 4)
ONE = ((), (1,), (1, 1))
DENSE = "give the model that it was made from"


class TorchaoSource(QuantizedSource):
    """A quantized source whose weights are flattened tensor subclasses."""

    def __init__(self, source: WeightSource, config: Mapping[str, Any], dtype: str) -> None:
        super().__init__(source, config, dtype)

    def find(self, specs: Mapping[str, TensorSpec]) -> Iterator[Module]:
        for name in specs:
            prefix, _, part = name.rpartition(".")
            if part == CODES:
                yield self._module(prefix, specs)
            elif part.startswith("_weight_") and f"{prefix}.{CODES}" not in specs:
                raise UserError(f"{name} belongs to no {CODES}", remedy=DENSE)

    def _module(self, prefix: str, specs: Mapping[str, TensorSpec]) -> Module:
        codes, scale = specs[f"{prefix}.{CODES}"], needed(specs, prefix, SCALE)
        rows, columns = matrix(codes)
        if codes.dtype == "U8":
            columns *= 2
        parts = [CODES, SCALE]
        if f"{prefix}.{ZERO}" in specs:
            shaped(specs[f"{prefix}.{ZERO}"], scale.shape)
            parts.append(ZERO)
        if f"{prefix}.{FACTOR}" in specs:
            shaped(specs[f"{prefix}.{FACTOR}"], *ONE)
            parts.append(FACTOR)
        shape = (rows, columns)
        return Module(
            prefix=prefix, shape=shape, grid=_grid(codes, scale, shape), parts=tuple(parts)
        )

    def decode(self, module: Module, parts: Mapping[str, Tensor]) -> Stored:
        import torch
        from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8

        from stages.quantized.stored_weight import Stored

        rows, columns = module.shape
        codes, scale = parts[CODES], parts[SCALE]
        if codes.dtype == torch.uint8:
            codes = unpack_fp4_from_uint8(codes, rows, columns, dtype=torch.float32)
        groups = columns // (module.grid.group_size or columns)
        if module.grid.scale_dtype is not None and tuple(scale.shape) != (rows, groups):
            scale = _rows_of_tiles(scale.view(torch.uint8), rows, groups).view(scale.dtype)
        scale = scale.reshape(1) if scale.numel() == 1 else scale.reshape(rows, groups)
        if module.grid.scale_dtype == "uint8":
            scale = scale.view(torch.uint8)
        factor, zero, grid = parts.get(FACTOR), parts.get(ZERO), module.grid
        if zero is not None and not bool(zero.any()):
            zero = None  # it is stored for symmetric integers too
        if zero is not None:
            zero, grid = zero.reshape(scale.shape), replace(grid, symmetric=False)
        return Stored(
            grid=grid,
            codes=codes,
            scale=scale,
            zero_point=zero,
            factor=None if factor is None else factor.float().reshape(1),
        )


def _grid(codes: TensorSpec, scale: TensorSpec, shape: tuple[int, int]) -> QArgs:
    """The grid of a weight by the dtypes and shapes of its tensors; UserError for others."""
    rows, columns = shape
    if scale.dtype == "F8_E8M0" and codes.dtype in ("F8_E4M3", "U8"):
        shaped(scale, *_scale_shapes(rows, columns // 32))
        return MXFP4 if codes.dtype in FP4 else MXFP8
    if scale.dtype == "F8_E4M3" and codes.dtype == "U8":
        shaped(scale, *_scale_shapes(rows, columns // 16))
        return NVFP4
    kind = {"I8": "int", "F8_E4M3": "float"}.get(codes.dtype)
    if kind is None or scale.dtype not in FLOATS:
        raise UserError(
            f"{codes.name} is {codes.dtype} with scales of {scale.dtype}, which is not read here",
            remedy=f"what is read: int8, float8_e4m3, NVFP4 and MX; else {DENSE}",
        )
    if scale.shape in ONE:
        return QArgs(num_bits=8, type=kind, strategy="tensor")
    groups = matrix(scale)[1]
    shaped(scale, (rows, groups))
    if groups == 1:
        return QArgs(num_bits=8, type=kind, strategy="channel")
    if columns % groups:
        raise UserError(f"{scale.name} is {list(scale.shape)} for {columns} columns", remedy=DENSE)
    return QArgs(num_bits=8, type=kind, strategy="group", group_size=columns // groups)


def _scale_shapes(rows: int, groups: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of the scales of blocks: plain, and in tiles; no matrix has the two alike."""
    return (rows, groups), (-(-rows // TILE[0]) * 32, -(-groups // TILE[1]) * 16)


def _rows_of_tiles(tiles: Tensor, rows: int, groups: int) -> Tensor:
    """Scales [rows, groups] from tiles: within one, row 32 i + j is in line j, at 4 i."""
    down, across = -(-rows // TILE[0]), -(-groups // TILE[1])
    spread = tiles.reshape(down, across, 32, 4, 4).permute(0, 3, 2, 1, 4)
    return spread.reshape(down * TILE[0], across * TILE[1])[:rows, :groups].contiguous()
