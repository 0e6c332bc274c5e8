"""Read ModelOpt checkpoints: NVFP4, and FP8 per tensor.

NVFP4: weight uint8 [out, in / 2] with two E2M1 codes a byte, the even column in the low bits;
weight_scale float8_e4m3 [out, in / 16], multiplied by weight_scale_2, one float32. FP8: weight
float8_e4m3 and one float32 weight_scale. Inputs are divided by input_scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from stages.formats.input_params import InputParams
from stages.quantized.source import (
    REMEDY,
    Module,
    QuantizedSource,
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

GROUP = 16
ONE = ((), (1,))
CACHE = (".k_scale", ".v_scale")


class ModelOptSource(QuantizedSource):
    """A quantized source with weight, weight_scale, weight_scale_2 and input_scale."""

    def __init__(self, source: WeightSource, config: Mapping[str, Any], dtype: str) -> None:
        nested = config.get("quantization")  # the nesting of hf_quant_config.json
        settings: Mapping[str, Any] = nested if isinstance(nested, dict) else config
        super().__init__(source, settings, dtype)
        algorithm = {"quant_algo": str(settings.get("quant_algo")).upper()}
        self.algorithm: str = option(algorithm, "quant_algo", ("NVFP4", "FP8"), None)
        option(settings, "group_size", (GROUP, None), None)
        self.dense = [*names_of(settings, "exclude_modules"), *names_of(settings, "ignore")]

    def find(self, specs: Mapping[str, TensorSpec]) -> Iterator[Module]:
        wanted = {"NVFP4": "U8", "FP8": "F8_E4M3"}[self.algorithm]
        for name, spec in specs.items():
            prefix, _, part = name.rpartition(".")
            if part == "weight" and spec.dtype == wanted:
                self._check_excluded(prefix)
                yield (
                    self._nvfp4(spec, prefix, specs)
                    if wanted == "U8"
                    else self._fp8(spec, prefix, specs)
                )
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

    def _nvfp4(self, weight: TensorSpec, prefix: str, specs: Mapping[str, TensorSpec]) -> Module:
        if len(weight.shape) != 2:
            raise UserError(f"{weight.name} is {list(weight.shape)}, no matrix", remedy=REMEDY)
        rows, columns = weight.shape[0], 2 * weight.shape[1]
        scale = needed(specs, prefix, "weight_scale")
        shaped(scale, (rows, columns // GROUP))
        if scale.dtype != "F8_E4M3":
            raise UserError(f"{scale.name} is {scale.dtype}, not F8_E4M3", remedy=REMEDY)
        shaped(needed(specs, prefix, "weight_scale_2"), *ONE)
        grid = QArgs(
            num_bits=4,
            type="float",
            strategy="tensor_group",
            group_size=GROUP,
            scale_dtype="float8_e4m3fn",
        )
        return self._module(prefix, (rows, columns), grid, specs)

    def _fp8(self, weight: TensorSpec, prefix: str, specs: Mapping[str, TensorSpec]) -> Module:
        if len(weight.shape) != 2:
            raise UserError(f"{weight.name} is {list(weight.shape)}, no matrix", remedy=REMEDY)
        shaped(needed(specs, prefix, "weight_scale"), *ONE)
        grid = QArgs(num_bits=8, type="float", strategy="tensor")
        return self._module(prefix, (weight.shape[0], weight.shape[1]), grid, specs)

    def _module(
        self, prefix: str, shape: tuple[int, int], grid: QArgs, specs: Mapping[str, TensorSpec]
    ) -> Module:
        names = ("weight", "weight_scale", "weight_scale_2", "input_scale")
        parts = tuple(part for part in names if f"{prefix}.{part}" in specs)
        return Module(prefix=prefix, shape=shape, grid=grid, parts=parts)

    def drops(self, name: str) -> bool:
        """Scales of the KV cache are no part of the dense model."""
        return name.endswith(CACHE)

    def decode(self, module: Module, parts: Mapping[str, Tensor]) -> Stored:
        from stages.quantized.stored_weight import Stored

        if self.algorithm == "FP8":
            scale = parts["weight_scale"].float().reshape(1)
            return Stored(grid=module.grid, codes=parts["weight"], scale=scale)
        import torch
        from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8

        rows, columns = module.shape
        codes = unpack_fp4_from_uint8(parts["weight"], rows, columns, dtype=torch.float32)
        return Stored(
            grid=module.grid,
            codes=codes,
            scale=parts["weight_scale"],
            factor=parts["weight_scale_2"].float().reshape(1),
        )

    def inputs(self, prefix: str) -> InputParams:
        name = f"{prefix}.input_scale"
        if "input_scale" not in self.modules[prefix].parts:
            return InputParams()
        scale = self.source.read([name])[name].float().reshape(1)
        if self.algorithm == "FP8":
            return InputParams(scale=scale)
        return InputParams(global_scale=1 / scale)
