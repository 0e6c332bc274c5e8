"""Read AutoAWQ checkpoints of version "gemm".

qweight int32 [in, out / 8] and qzeros int32 [groups, out / 8] hold eight unsigned 4-bit codes a
word, in the order 0 2 4 6 1 3 5 7 from the lowest bits on; scales [groups, out].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stages.quantized.source import (
    Module,
    QuantizedSource,
    check_dense,
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

BITS, PER_WORD = 4, 8
PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Position of channel 0, 1, ... in a word, counted in codes from the lowest bits."""


class AwqSource(QuantizedSource):
    """A quantized source with qweight, qzeros and scales."""

    def __init__(self, source: WeightSource, config: Mapping[str, Any], dtype: str) -> None:
        super().__init__(source, config, dtype)
        option(config, "bits", (BITS,), BITS)
        option(
            {"version": str(config.get("version", "gemm")).lower()}, "version", ("gemm",), "gemm"
        )
        self.zero_point: bool = option(config, "zero_point", (True, False), True)
        self.group_size = group_size_of(config, 128)
        self.dense = names_of(config, "modules_to_not_convert")

    def find(self, specs: Mapping[str, TensorSpec]) -> Iterator[Module]:
        for name in specs:
            prefix, _, part = name.rpartition(".")
            if part == "qweight":
                check_dense(prefix, self.dense, "modules_to_not_convert")
                yield self._module(prefix, specs)

    def _module(self, prefix: str, specs: Mapping[str, TensorSpec]) -> Module:
        scales = needed(specs, prefix, "scales")
        rows = matrix(scales)[1]
        columns = matrix(specs[f"{prefix}.qweight"])[0]
        shaped(specs[f"{prefix}.qweight"], (columns, rows // PER_WORD))
        groups = 1 if self.group_size is None else -(-columns // self.group_size)
        shaped(scales, (groups, rows))
        parts = ["qweight", "scales"]
        if self.zero_point:
            shaped(needed(specs, prefix, "qzeros"), (groups, rows // PER_WORD))
        if f"{prefix}.qzeros" in specs:
            parts.append("qzeros")
        grid = QArgs(
            num_bits=BITS,
            symmetric=not self.zero_point,
            strategy="channel" if self.group_size is None else "group",
            group_size=self.group_size,
        )
        return Module(prefix=prefix, shape=(rows, columns), grid=grid, parts=tuple(parts))

    def decode(self, module: Module, parts: Mapping[str, Tensor]) -> Stored:
        from stages.quantized.stored_weight import Stored

        zeros = _codes(parts["qzeros"]) if self.zero_point else None
        return Stored(
            grid=module.grid,
            codes=_codes(parts["qweight"]),
            scale=parts["scales"].T.contiguous(),
            zero_point=zeros,
        )


def _codes(words: Tensor) -> Tensor:
    """int8 [8 * words, n]: the unsigned codes in int32 [n, words], less eight."""
    from stages.quantized.unpack_bits import unpacked

    count = PER_WORD * words.shape[1]
    codes = unpacked(words.T, BITS, count).reshape(-1, PER_WORD, words.shape[0])
    return codes[:, list(PLACES)].reshape(count, -1)
