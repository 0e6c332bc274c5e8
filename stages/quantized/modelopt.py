"""Read ModelOpt checkpoints: NVFP4, MXFP4, MXFP8, FP8 per tensor or row, and INT4 with AWQ.

FP4: weight uint8 [out, in / 2] with two E2M1 codes a byte, the even column in the low bits. NVFP4's
weight_scale is float8_e4m3 [out, in / 16], multiplied by weight_scale_2, one float32; MX's is uint8
[out, in / 32], a power of two. FP8: weight float8_e4m3 and float32 weight_scale, one or [out]. INT4
(W4A16, W4A8): weight uint8 [out / 2, in] with two signed rows a byte, the even one in the low bits;
weight_scale float32 [out, groups]. Inputs are divided by input_scale. AWQ multiplies them by
pre_quant_scale [in] first, which is read into the weight's columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from stages.formats.input_params import InputParams
from stages.quantized.grids import MXFP4, MXFP8, NVFP4
from stages.quantized.source import (
    REMEDY,
    Module,
    QuantizedSource,
    group_size_of,
    matrix,
    names_of,
    needed,
    option,
    shaped,
)
from stages.schemes.quant_args import QArgs
from stages.weights.source import TensorSpec, WeightSource

if TYPE_CHECKING:
    from torch import Tensor

    from stages.quantized.stored_weight import Stored

ONE = ((), (1,))
CACHE = (".k_scale", ".v_scale")
PARTS = ("weight", "weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale")
ALGORITHMS: dict[str, QArgs] = {
    **dict.fromkeys(("NVFP4", "W4A16_NVFP4", "NVFP4_AWQ"), NVFP4),
    **dict.fromkeys(("MXFP4", "W4A8_MXFP4_FP8"), MXFP4),
    "MXFP8": MXFP8,
    "FP8": QArgs(num_bits=8, type="float", strategy="tensor"),
    "FP8_PER_CHANNEL_PER_TOKEN": QArgs(num_bits=8, type="float", strategy="channel"),
    **dict.fromkeys(("W4A16_AWQ", "W4A8_AWQ"), QArgs(num_bits=4, strategy="group", group_size=128)),
}
"""The grid of weights by quant_algo; the groups of INT4 are those that `group_size` says."""
TURNED = "its inputs are multiplied by pre_quant_scale, which no format of compressed-tensors has"


class ModelOptSource(QuantizedSource):
    """A quantized source with weight, weight_scale, weight_scale_2 and input_scale."""

    def __init__(self, source: WeightSource, config: Mapping[str, Any], dtype: str) -> None:
        nested = config.get("quantization")  # the nesting of hf_quant_config.json
        settings: Mapping[str, Any] = nested if isinstance(nested, dict) else config
        super().__init__(source, settings, dtype)
        algorithm = {"quant_algo": str(settings.get("quant_algo")).upper()}
        self.algorithm: str = option(algorithm, "quant_algo", tuple(ALGORITHMS), None)
        self.grid = ALGORITHMS[self.algorithm]
        if self.grid.type == "int":
            size = group_size_of(settings, 128)
            strategy = "channel" if size is None else "group"
            self.grid = replace(self.grid, strategy=strategy, group_size=size)
        else:
            option(settings, "group_size", (self.grid.group_size, None), None)
        self.dense = [*names_of(settings, "exclude_modules"), *names_of(settings, "ignore")]

    def find(self, specs: Mapping[str, TensorSpec]) -> Iterator[Module]:
        wanted = "F8_E4M3" if self.grid.num_bits == 8 else "U8"
        for name, spec in specs.items():
            prefix, _, part = name.rpartition(".")
            if part == "weight" and spec.dtype == wanted:
                self._check_excluded(prefix)
                yield self._module(spec, prefix, specs)
            elif part in ("weight_scale", "weight_scale_2"):
                weight = needed(specs, prefix, "weight")
                if weight.dtype != wanted:
                    raise UserError(
                        f"{name} is the scale of a weight of dtype {weight.dtype}, not {wanted}",
                        remedy=REMEDY,
                    )

    def _check_excluded(self, prefix: str) -> None:
        for pattern in self.dense:
            if fnmatchcase(prefix, pattern):
                raise UserError(
                    f"{prefix} is stored quantized, but exclude_modules has {pattern!r}",
                    remedy=REMEDY,
                )

    def _module(self, weight: TensorSpec, prefix: str, specs: Mapping[str, TensorSpec]) -> Module:
        rows, columns = matrix(weight)
        if self.grid.num_bits == 4:
            rows, columns = (2 * rows, columns) if self.grid.type == "int" else (rows, 2 * columns)
        self._check_scales(needed(specs, prefix, "weight_scale"), rows, columns)
        if self.grid == NVFP4:
            shaped(needed(specs, prefix, "weight_scale_2"), *ONE)
        turned = f"{prefix}.pre_quant_scale" in specs
        if turned:
            shaped(specs[f"{prefix}.pre_quant_scale"], (columns,))
        return Module(
            prefix=prefix,
            shape=(rows, columns),
            grid=self.grid,
            parts=tuple(part for part in PARTS if f"{prefix}.{part}" in specs),
            unfit=TURNED if turned else None,
        )

    def _check_scales(self, scale: TensorSpec, rows: int, columns: int) -> None:
        groups = columns // (self.grid.group_size or columns)
        shapes = {"tensor": ONE, "channel": ((rows,), (rows, 1))}
        shaped(scale, *shapes.get(self.grid.strategy, ((rows, groups),)))
        wanted = {"float8_e4m3fn": "F8_E4M3", "uint8": "U8"}.get(self.grid.scale_dtype or "")
        if wanted is not None and scale.dtype != wanted:
            raise UserError(f"{scale.name} is {scale.dtype}, not {wanted}", remedy=REMEDY)

    def drops(self, name: str) -> bool:
        """Scales of the KV cache are no part of the dense model."""
        return name.endswith(CACHE)

    def decode(self, module: Module, parts: Mapping[str, Tensor]) -> Stored:
        from stages.quantized.stored_weight import Stored

        grid, scale = module.grid, parts["weight_scale"]
        if grid.scale_dtype is None:
            scale = scale.float().reshape(1 if grid.strategy == "tensor" else (module.shape[0], -1))
        return Stored(
            grid=grid,
            codes=_codes(module, parts["weight"]),
            scale=scale,
            factor=parts["weight_scale_2"].float().reshape(1) if grid == NVFP4 else None,
            columns_scale=parts.get("pre_quant_scale"),
        )

    def inputs(self, prefix: str) -> InputParams:
        name = f"{prefix}.input_scale"
        if "input_scale" not in self.modules[prefix].parts:
            return InputParams()
        scale = self.source.read([name])[name].float().reshape(1)
        if self.grid == NVFP4:
            return InputParams(global_scale=1 / scale)
        return InputParams(scale=scale)


def _codes(module: Module, packed: Tensor) -> Tensor:
    """Codes [out, in] of a weight: int8, float8_e4m3, or float32 numbers of E2M1."""
    import torch
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8

    rows, columns = module.shape
    if module.grid.num_bits == 8:
        return packed
    if module.grid.type == "int":
        nibbles = torch.stack((packed & 15, packed >> 4), dim=1).reshape(rows, columns)
        return ((nibbles ^ 8).to(torch.int8)) - 8  # two's complement of four bits
    values: Tensor = unpack_fp4_from_uint8(packed, rows, columns, dtype=torch.float32)
    return values
