"""A GGUF file as a quantized source: dense weights as before, and codes and scales to be kept.

transformers turns rows of some tensors around (llama's queries and keys) when it reads them; codes
and scales are turned alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from stages.quantized.gguf_blocks import FORMATS, stored_blocks
from stages.quantized.source import Module, QuantizedSource, misfits
from stages.weights.gguf_source import GgufSource
from stages.weights.source import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

    from stages.quantized.stored_weight import Stored

METHOD = "gguf"
WEIGHT = ".weight"
PLAIN = ("F32", "F16", "BF16", "F64")
MIXED = ("bloom", "mamba")
"""Architectures of which transformers does more to a matrix than to move its rows."""


class QuantizedGguf(QuantizedSource):
    """The weights of a GGUF file whose matrices are in block formats, one tensor at a time."""

    source: GgufSource

    def __init__(self, source: GgufSource) -> None:
        super().__init__(source, {"quant_method": METHOD}, source.dtype)

    def find(self, specs: Mapping[str, TensorSpec]) -> Iterator[Module]:
        for name, spec in specs.items():
            form = FORMATS.get(self.source.tensors[name]["type"])
            if self.source.architecture in MIXED:
                continue
            if form is not None and name.endswith(WEIGHT) and len(spec.shape) == 2:
                shape = (spec.shape[0], spec.shape[1])
                prefix = name.removesuffix(WEIGHT)
                yield Module(prefix=prefix, shape=shape, grid=form.grid, parts=("weight",))

    def why_dense(self, prefix: str) -> str:
        kind = self.source.tensors.get(f"{prefix}{WEIGHT}", {}).get("type", "F32")
        if kind in PLAIN:
            return super().why_dense(prefix)
        return f"the source has it as {kind}, whose numbers no format of compressed-tensors has"

    def specs(self) -> Mapping[str, TensorSpec]:
        return self.source.specs()

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        return self.source.read(names, device=device)

    def stored(self, prefix: str, *, device: str = "cpu") -> Stored:
        from stages.quantized.stored_weight import Stored

        name = f"{prefix}{WEIGHT}"
        with misfits(prefix):
            rows, order = self.source.rows(name)
            stored = stored_blocks(self.source.tensors[name]["type"], rows[order])
        return Stored(
            grid=stored.grid,
            codes=stored.codes.to(device),
            scale=stored.scale.to(device),
            global_scale=None if stored.global_scale is None else stored.global_scale.to(device),
        )

    def decode(self, module: Module, parts: Mapping[str, Tensor]) -> Stored:
        raise KeyError(module.prefix)  # `stored` reads bytes, not tensors
