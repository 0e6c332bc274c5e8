"""Read MXFP4 checkpoints as OpenAI publishes gpt-oss: experts fused and packed, the rest dense.

`NAME_blocks` uint8 [experts, out, in / 32, 16] holds FP4 (E2M1) codes, two in a byte, the even one
in the low bits; `NAME_scales` uint8 [experts, out, in / 32] their powers of two, 127 for 1 (OCP MX
specification). Models take them as `NAME` [experts, in, out].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from stages.quantized.grids import E2M1, MXFP4
from stages.quantized.source import REMEDY, SAFETENSORS, Module, QuantizedSource, names_of
from stages.schemes.quant_args import QArgs
from stages.weights.cut_source import Part, read_block
from stages.weights.source import TensorSpec, WeightSource

if TYPE_CHECKING:
    from torch import Tensor

    from stages.quantized.stored_weight import Stored

BLOCKS, SCALES = "_blocks", "_scales"
GROUP = 32
BIAS = 127
NAN = 255


class Mxfp4Source(QuantizedSource):
    """A quantized source whose fused tensors read as dense ones, one expert at a time.

    Modifier `keep` takes over the experts' Linears, which are parts of the fused tensors.
    """

    def __init__(self, source: WeightSource, config: Mapping[str, Any], dtype: str) -> None:
        super().__init__(source, config, dtype)
        names_of(config, "modules_to_not_convert")

    def find(self, specs: Mapping[str, TensorSpec]) -> Iterator[Module]:
        del specs
        return iter(())

    def decode(self, module: Module, parts: Mapping[str, Tensor]) -> Stored:
        raise KeyError(module.prefix)

    def part_grid(self, part: Part) -> QArgs | None:
        return MXFP4 if part.stored in self.fused else None

    def stored_part(self, part: Part) -> Stored | None:
        from stages.quantized.stored_weight import Stored

        if part.stored not in self.fused:
            return None
        blocks = read_block(self.source, f"{part.stored}{BLOCKS}", part.index)
        scales = read_block(self.source, f"{part.stored}{SCALES}", part.index)
        if bool((scales == NAN).any()):
            raise UserError(f"{part.stored} has a scale that is not a number", remedy=REMEDY)
        # parts are those of matrices [in, out]
        return Stored(
            grid=MXFP4, codes=part.of(values_of(blocks).flatten(-2).T), scale=part.of(scales.T)
        )

    @cached_property
    def fused(self) -> dict[str, TensorSpec]:
        """The dense tensor that each pair of blocks and scales stands for."""
        specs = self.source.specs()
        found: dict[str, TensorSpec] = {}
        for name, blocks in specs.items():
            if name.endswith(SCALES) and f"{name.removesuffix(SCALES)}{BLOCKS}" not in specs:
                raise UserError(f"{name} belongs to no blocks", remedy=REMEDY)
            if not name.endswith(BLOCKS):
                continue
            dense = name.removesuffix(BLOCKS)
            scales = specs.get(f"{dense}{SCALES}")
            if dense in specs:
                raise UserError(f"{dense} is stored both dense and quantized", remedy=REMEDY)
            if (
                scales is None
                or {blocks.dtype, scales.dtype} != {"U8"}
                or len(blocks.shape) != 4
                or blocks.shape != (*scales.shape, GROUP // 2)
            ):
                raise UserError(
                    f"{name} has no scales of its shape, or is {list(blocks.shape)} of "
                    f"{blocks.dtype} instead of [experts, out, in / 32, 16] of U8",
                    remedy=REMEDY,
                )
            experts, rows, groups, _ = blocks.shape
            found[dense] = TensorSpec(
                name=dense, shape=(experts, groups * GROUP, rows), dtype=SAFETENSORS[self.dtype]
            )
        return found

    @cached_property
    def _specs(self) -> dict[str, TensorSpec]:
        stored = self.source.specs()
        parts = {f"{name}{part}" for name in self.fused for part in (BLOCKS, SCALES)}
        return {name: s for name, s in stored.items() if name not in parts} | self.fused

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        """Dense tensors, in the order of `names`."""
        import torch

        wanted = list(names)
        plain = [name for name in wanted if name not in self.fused]
        found = self.source.read(plain, device=device) if plain else {}
        for name in wanted:
            if name in self.fused:
                blocks = [self.read_block(name, k) for k in range(self.fused[name].shape[0])]
                found[name] = torch.stack(blocks).to(device)
        return {name: found[name] for name in wanted}

    def read_block(self, name: str, index: int) -> Tensor:
        """Block `index` of a tensor's first dimension: [in, out] of one expert, or a vector."""
        if name not in self.fused:
            return read_block(self.source, name, index)
        import torch

        blocks = read_block(self.source, f"{name}{BLOCKS}", index)
        scales = read_block(self.source, f"{name}{SCALES}", index)
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dequantized(blocks, scales).to(dtype).T


def dequantized(blocks: Tensor, scales: Tensor) -> Tensor:
    """float32 [out, in] of codes uint8 [out, in / 32, 16] and scales uint8 [out, in / 32].

    A scale of 255 stands for NaN in the format.
    """
    import torch

    powers = torch.ldexp(
        torch.ones_like(scales, dtype=torch.float32), scales.to(torch.int32) - BIAS
    )
    powers[scales == NAN] = torch.nan
    return (values_of(blocks) * powers[..., None]).flatten(-2)


def values_of(blocks: Tensor) -> Tensor:
    """The numbers of E2M1 codes, float32 [out, in / 32, 32], without their scales."""
    import torch

    values = torch.tensor([*E2M1, *(-m for m in E2M1)], device=blocks.device)
    codes = torch.stack((blocks & 15, blocks >> 4), dim=-1).flatten(-2)
    return values[codes.int()]
