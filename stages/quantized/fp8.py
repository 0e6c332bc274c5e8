"""Read FP8 checkpoints with `quant_method: fp8`, scaled by block (DeepSeek-V3), row or tensor.

weight is float8_e4m3 [out, in]; weight_scale_inv (or weight_scale) multiplies it, whatever its
name says: one number for each block (those at the edges may be smaller), for each row or for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from stages.formats.input_params import InputParams
from stages.quantized.source import (
    REMEDY,
    Module,
    QuantizedSource,
    check_dense,
    names_of,
    option,
    shaped,
)
from stages.schemes.quant_args import QArgs
from stages.weights.source import TensorSpec, WeightSource

if TYPE_CHECKING:
    from torch import Tensor

    from stages.quantized.stored_weight import Stored

SCALES = ("weight_scale_inv", "weight_scale")
INPUTS = ("input_scale", "activation_scale")


class Fp8Source(QuantizedSource):
    """A quantized source with weight and weight_scale_inv or weight_scale."""

    def __init__(self, source: WeightSource, config: Mapping[str, Any], dtype: str) -> None:
        super().__init__(source, config, dtype)
        option(config, "fmt", ("e4m3", None), None)
        option(config, "activation_scheme", ("dynamic", "static", None), None)
        self.block = _block(config.get("weight_block_size"))
        names = ("modules_to_not_convert", "ignored_layers")
        self.dense = [pattern for name in names for pattern in names_of(config, name)]

    def find(self, specs: Mapping[str, TensorSpec]) -> Iterator[Module]:
        for name, spec in specs.items():
            prefix, _, part = name.rpartition(".")
            if part in SCALES and f"{prefix}.weight" not in specs:
                raise UserError(f"{name} belongs to no weight", remedy=REMEDY)
            if part == "weight" and spec.dtype == "F8_E4M3":
                check_dense(prefix, self.dense, "modules_to_not_convert")
                yield self._module(prefix, specs)

    def _module(self, prefix: str, specs: Mapping[str, TensorSpec]) -> Module:
        weight = specs[f"{prefix}.weight"]
        scale = next((part for part in SCALES if f"{prefix}.{part}" in specs), None)
        if scale is None:
            raise UserError(
                f"{prefix} is stored in FP8, but has no {' and no '.join(SCALES)}", remedy=REMEDY
            )
        if len(weight.shape) != 2:
            raise UserError(
                f"{weight.name} is {list(weight.shape)}: only matrices are read", remedy=REMEDY
            )
        rows, columns = weight.shape
        inputs = [part for part in INPUTS if f"{prefix}.{part}" in specs]
        return Module(
            prefix=prefix,
            shape=(rows, columns),
            grid=self._grid(specs[f"{prefix}.{scale}"], rows, columns),
            parts=("weight", scale, *inputs),
        )

    def _grid(self, scale: TensorSpec, rows: int, columns: int) -> QArgs:
        allowed: dict[tuple[int, ...], str] = {
            (rows,): "channel",
            (rows, 1): "channel",
            (): "tensor",
            (1,): "tensor",
            (1, 1): "tensor",
        }
        if self.block is not None:
            height, width = self.block
            allowed = {(-(-rows // height), -(-columns // width)): "block"}
        shaped(scale, *allowed)
        return QArgs(
            num_bits=8, type="float", strategy=allowed[scale.shape], block_structure=self.block
        )

    def decode(self, module: Module, parts: Mapping[str, Tensor]) -> Stored:
        from stages.quantized.stored_weight import Stored

        scale = next(parts[part] for part in SCALES if part in parts)
        shapes = {"tensor": (1,), "channel": (module.shape[0], 1)}
        return Stored(
            grid=module.grid,
            codes=parts["weight"],
            scale=scale.float().reshape(shapes.get(module.grid.strategy, scale.shape)),
        )

    def inputs(self, prefix: str) -> InputParams:
        name = next((f"{prefix}.{p}" for p in INPUTS if p in self.modules[prefix].parts), None)
        if name is None:
            return InputParams()
        return InputParams(scale=self.source.read([name])[name].float().reshape(1))


def _block(value: Any) -> list[int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or [type(n) for n in value] != [int, int] or min(value) < 1:
        raise UserError(
            f"quantization_config.weight_block_size is {value!r}",
            remedy="it must be [rows, columns], such as [128, 128]",
        )
    return [int(n) for n in value]
