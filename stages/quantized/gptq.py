"""Read GPTQ checkpoints, as AutoGPTQ and GPTQModel write them.

qweight int32 [in * bits / 32, out] and qzeros int32 [groups, out * bits / 32] are dense streams of
codes, the lowest bits first (for 3 bits, codes run over the edges of words); scales [groups, out];
g_idx int32 [in] names every column's group. Format "gptq" stores each zero point minus one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from stages.quantized.source import (
    REMEDY,
    Module,
    QuantizedSource,
    group_size_of,
    needed,
    option,
    part_of,
    shaped,
)
from stages.schemes.quant_args import QArgs
from stages.weights.source import TensorSpec, WeightSource

if TYPE_CHECKING:
    from torch import Tensor

    from stages.quantized.stored_weight import Stored

BITS = (2, 3, 4, 8)


class GptqSource(QuantizedSource):
    """A quantized source with qweight, qzeros, scales and g_idx."""

    def __init__(self, source: WeightSource, config: Mapping[str, Any], dtype: str) -> None:
        super().__init__(source, config, dtype)
        self.bits: int = option(config, "bits", BITS, 4)
        self.symmetric: bool = option(config, "sym", (True, False), True)
        layout = option(config, "checkpoint_format", ("gptq", "gptq_v2", None), "gptq")
        self.offset = 0 if layout == "gptq_v2" else 1
        self.group_size = group_size_of(config, 128)
        # keys with "-:" only name dense modules, which the tensors show as well
        overrides = [key for key in part_of(config, "dynamic") if not str(key).startswith("-:")]
        if overrides:
            raise UserError(
                f"quantization_config.dynamic gives {overrides[0]!r} a format of its own",
                remedy="this is not read: give the model that it was made from",
            )

    def find(self, specs: Mapping[str, TensorSpec]) -> Iterator[Module]:
        for name in specs:
            prefix, _, part = name.rpartition(".")
            if part == "qweight":
                yield self._module(prefix, specs)

    def _module(self, prefix: str, specs: Mapping[str, TensorSpec]) -> Module:
        words, rows = _matrix(needed(specs, prefix, "qweight"))
        columns = words * 32 // self.bits
        groups = 1 if self.group_size is None else -(-columns // self.group_size)
        shaped(needed(specs, prefix, "scales"), (groups, rows))
        shaped(needed(specs, prefix, "qzeros"), (groups, -(-rows * self.bits // 32)))
        parts = ["qweight", "scales", "qzeros"]
        if f"{prefix}.g_idx" in specs:
            shaped(specs[f"{prefix}.g_idx"], (columns,))
            parts.append("g_idx")
        grid = QArgs(
            num_bits=self.bits,
            symmetric=self.symmetric,
            strategy="channel" if self.group_size is None else "group",
            group_size=self.group_size,
        )
        return Module(prefix=prefix, shape=(rows, columns), grid=grid, parts=tuple(parts))

    def decode(self, module: Module, parts: Mapping[str, Tensor]) -> Stored:
        import torch

        from stages.quantized.stored_weight import Stored
        from stages.quantized.unpack_bits import unpacked

        rows, columns = module.shape
        groups = parts["scales"].shape[0]
        codes = unpacked(parts["qweight"], self.bits, columns)
        zeros = unpacked(parts["qzeros"].T, self.bits, rows)
        # minus one wraps around within the bits, as in the original kernels
        half = 1 << (self.bits - 1)
        zeros = ((zeros.int() + half + self.offset) % (2 * half) - half).to(torch.int8)
        if self.symmetric and bool(zeros.any()):
            raise UserError(
                f"quantization_config says sym, but {module.prefix} has zero points",
                remedy=REMEDY,
            )
        return Stored(
            grid=module.grid,
            codes=codes.T.contiguous(),
            scale=parts["scales"].T.contiguous(),
            zero_point=None if self.symmetric else zeros,
            columns=self._columns(module, groups, parts.get("g_idx")),
        )

    def _columns(self, module: Module, groups: int, index: Tensor | None) -> Tensor | None:
        """The group of every column; None if groups are runs of neighbours."""
        import torch

        if index is None:
            return None
        if bool((index < 0).any()) or bool((index >= groups).any()):
            raise UserError(f"{module.prefix}.g_idx names groups that are not there", remedy=REMEDY)
        columns = module.shape[1]
        plain = torch.arange(columns, device=index.device) // (self.group_size or columns)
        return None if torch.equal(index.long(), plain) else index.long()


def _matrix(spec: TensorSpec) -> tuple[int, int]:
    if len(spec.shape) != 2 or spec.dtype != "I32":
        raise UserError(
            f"{spec.name} is {spec.dtype} {list(spec.shape)}, not an int32 matrix", remedy=REMEDY
        )
    return spec.shape[0], spec.shape[1]
