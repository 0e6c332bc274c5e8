"""Read GPTQ checkpoints, as AutoGPTQ and GPTQModel write them.

qweight int32 [in * bits / 32, out] and qzeros int32 [groups, out * bits / 32] are dense streams of
codes, the lowest bits first (for 3 bits, codes run over the edges of words); scales [groups, out];
g_idx int32 [in] names every column's group. Format "gptq" stores each zero point minus one,
"gptq_v2" as it is. GPTQModel's "gptq_p", which it takes for 5, 6 and 7 bits whatever was asked,
stores zero points as they are and codes in planes (`unpack_bits`); its `dynamic` gives modules
other numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from stages.schemes.patterns import MARK, check_pattern, matches_pattern
from stages.schemes.quant_args import QArgs
from stages.weights.source import TensorSpec, WeightSource

if TYPE_CHECKING:
    from torch import Tensor

    from stages.quantized.stored_weight import Stored

BITS = tuple(range(2, 9))
PLANAR = (5, 6, 7)
"""Bits that have no dense stream: always in planes, with zero points as they are."""
PLANES = "gptq_p"
FORMATS = ("gptq", "gptq_v2", PLANES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbers:
    """Bits, symmetry and group size (None: whole rows) of a quantized module."""

    bits: int
    symmetric: bool
    group_size: int | None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Numbers:
        """From a quantization_config; UserError for what is not read."""
        return cls(
            bits=option(config, "bits", BITS, 4),
            symmetric=option(config, "sym", (True, False), True),
            group_size=group_size_of(config, 128),
        )


class GptqSource(QuantizedSource):
    """A quantized source with qweight, qzeros, scales and g_idx."""

    def __init__(self, source: WeightSource, config: Mapping[str, Any], dtype: str) -> None:
        super().__init__(source, config, dtype)
        stated = config.get("checkpoint_format") or config.get("format") or "gptq"
        self.layout: str = option({"checkpoint_format": stated}, "checkpoint_format", FORMATS, None)
        self.usual = Numbers.of(config)
        # keys with "-:" only name dense modules, which the tensors show as well
        given = {str(key): value for key, value in part_of(config, "dynamic").items()}
        self.rules = [
            (pattern_of(key), Numbers.of({**config, **part_of(given, key)}))
            for key in given
            if not key.startswith("-:")
        ]

    def numbers(self, prefix: str) -> Numbers:
        """The numbers of a module: of the first rule that matches the start of its name, if any."""
        found = (numbers for pattern, numbers in self.rules if matches_pattern(pattern, prefix))
        return next(found, self.usual)

    def find(self, specs: Mapping[str, TensorSpec]) -> Iterator[Module]:
        for name in specs:
            prefix, _, part = name.rpartition(".")
            if part == "qweight":
                yield self._module(prefix, specs)

    def _module(self, prefix: str, specs: Mapping[str, TensorSpec]) -> Module:
        words, rows = _matrix(needed(specs, prefix, "qweight"))
        numbers = self.numbers(prefix)
        columns = words * 32 // numbers.bits
        groups = 1 if numbers.group_size is None else -(-columns // numbers.group_size)
        shaped(needed(specs, prefix, "scales"), (groups, rows))
        shaped(needed(specs, prefix, "qzeros"), (groups, -(-rows * numbers.bits // 32)))
        parts = ["qweight", "scales", "qzeros"]
        if f"{prefix}.g_idx" in specs:
            shaped(specs[f"{prefix}.g_idx"], (columns,))
            parts.append("g_idx")
        grid = QArgs(
            num_bits=numbers.bits,
            symmetric=numbers.symmetric,
            strategy="channel" if numbers.group_size is None else "group",
            group_size=numbers.group_size,
        )
        return Module(prefix=prefix, shape=(rows, columns), grid=grid, parts=tuple(parts))

    def decode(self, module: Module, parts: Mapping[str, Tensor]) -> Stored:
        import torch

        from stages.quantized.stored_weight import Stored
        from stages.quantized.unpack_bits import unpacked, unpacked_planes

        rows, columns = module.shape
        groups = parts["scales"].shape[0]
        bits, symmetric = module.grid.num_bits, module.grid.symmetric
        planar = self.layout == PLANES or bits in PLANAR
        unpack = unpacked_planes if planar else unpacked
        codes = unpack(parts["qweight"], bits, columns)
        zeros = unpack(parts["qzeros"].T, bits, rows)
        # minus one wraps around within the bits, as in the original kernels
        offset = 1 if self.layout == "gptq" and not planar else 0
        half = 1 << (bits - 1)
        zeros = ((zeros.int() + half + offset) % (2 * half) - half).to(torch.int8)
        if symmetric and bool(zeros.any()):
            raise UserError(
                f"quantization_config says sym, but {module.prefix} has zero points",
                remedy=REMEDY,
            )
        return Stored(
            grid=module.grid,
            codes=codes.T.contiguous(),
            scale=parts["scales"].T.contiguous(),
            zero_point=None if symmetric else zeros,
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
        plain = torch.arange(columns, device=index.device) // (module.grid.group_size or columns)
        return None if torch.equal(index.long(), plain) else index.long()


def _matrix(spec: TensorSpec) -> tuple[int, int]:
    if len(spec.shape) != 2 or spec.dtype != "I32":
        raise UserError(
            f"{spec.name} is {spec.dtype} {list(spec.shape)}, not an int32 matrix", remedy=REMEDY
        )
    return spec.shape[0], spec.shape[1]


def pattern_of(key: str) -> str:
    """The pattern of a key of `dynamic` as targets have it; UserError if it is none."""
    pattern = MARK + key.removeprefix("+:")
    check_pattern("quantization_config.dynamic", pattern)
    return pattern
