"""Read bitsandbytes checkpoints: NF4 and FP4, also with nested scales, and int8 by rows.

Four bits: `weight` uint8 [in * out / 2, 1] has two codes a byte, the first in the high bits, of a
matrix [out, in] row by row; `quant_map` float32 [16] says what codes mean, `absmax` the scale of
each run of `blocksize` entries. Nested, absmax is uint8: `nested_quant_map` [256] times
`nested_absmax` plus an offset. `quant_state.bitsandbytes__nf4` (or fp4) is JSON with the shape.
bitsandbytes' FP4 is not E2M1. Eight bits: `weight` int8 [out, in] times SCB [out] / 127.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from stages.quantized.source import (
    REMEDY,
    SAFETENSORS,
    Module,
    QuantizedSource,
    matrix,
    misfits,
    shaped,
)
from stages.schemes.quant_args import QArgs
from stages.weights.source import TensorSpec, WeightSource
from stages.weights.writer import pieces

if TYPE_CHECKING:
    from torch import Tensor

    from stages.quantized.stored_weight import Stored

STATE = ".weight.quant_state.bitsandbytes__"
KINDS = ("nf4", "fp4")
LONGEST = 4096
ROWS, FORMAT = "SCB", "weight_format"
OF_127 = 7.874015718698502e-3
"""1 / 127 as bitsandbytes has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A four-bit weight: its kind, dense shape, block size, and offset of nested scales."""

    kind: str
    shape: tuple[int, int]
    block: int
    nested: int | None
    offset: float


class BitsAndBytesSource(QuantizedSource):
    """A quantized source; only its int8 modules are on a grid that modifier `keep` knows."""

    def __init__(self, source: WeightSource, config: Mapping[str, Any], dtype: str) -> None:
        super().__init__(source, config, dtype)

    def find(self, specs: Mapping[str, TensorSpec]) -> Iterator[Module]:
        for name in specs:
            prefix, _, part = name.rpartition(".")
            if part != ROWS:
                continue
            weight = specs.get(f"{prefix}.weight")
            if weight is None or weight.dtype != "I8":
                raise UserError(f"{name} belongs to no int8 weight", remedy=REMEDY)
            rows, columns = matrix(weight)
            shaped(specs[name], (rows,))
            grid = QArgs(num_bits=8, strategy="channel")
            parts = ["weight", ROWS, *([FORMAT] if f"{prefix}.{FORMAT}" in specs else [])]
            yield Module(prefix=prefix, shape=(rows, columns), grid=grid, parts=tuple(parts))

    def decode(self, module: Module, parts: Mapping[str, Tensor]) -> Stored:
        from stages.quantized.stored_weight import Stored

        if FORMAT in parts and int(parts[FORMAT]) != 0:
            raise UserError(
                f"{module.prefix} is laid out for a GPU ({FORMAT} {int(parts[FORMAT])})",
                remedy="save it again with a newer bitsandbytes, or give the dense model",
            )
        scale = parts[ROWS].float().reshape(-1, 1) * OF_127
        return Stored(grid=module.grid, codes=parts["weight"], scale=scale)

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The four-bit weights by module."""
        found: dict[str, Table] = {}
        for name, spec in self.source.specs().items():
            prefix, mark, kind = name.partition(STATE)
            if mark:
                found[prefix] = self._table(prefix, kind, spec)
        return found

    def _table(self, prefix: str, kind: str, spec: TensorSpec) -> Table:
        if kind not in KINDS or spec.dtype != "U8" or spec.bytes > LONGEST:
            raise UserError(f"{spec.name} is not read here", remedy=f"known: {', '.join(KINDS)}")
        try:
            state = json.loads(b"".join(bytes(part) for part in pieces(self.source, spec.name)))
            (rows, columns), block = state["shape"], int(state["blocksize"])
            nested = state.get("nested_blocksize")
            table = Table(
                kind=kind,
                shape=(int(rows), int(columns)),
                block=block,
                nested=None if nested is None else int(nested),
                offset=float(state.get("nested_offset", 0.0)),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{spec.name} is no description of a weight", remedy=REMEDY) from error
        specs, count = self.source.specs(), table.shape[0] * table.shape[1]
        blocks = -(-count // block) if block > 0 else 0
        wanted = {"": -(-count // 2), ".absmax": blocks, ".quant_map": 16}
        for part, length in wanted.items():
            stored = specs.get(f"{prefix}.weight{part}")
            if stored is None or length == 0 or length not in (stored.shape[0], *stored.shape[1:]):
                raise UserError(
                    f"{prefix}.weight{part} is missing or has another shape", remedy=REMEDY
                )
        return table

    def why_dense(self, prefix: str) -> str:
        if prefix not in self.tables:
            return super().why_dense(prefix)
        kind = self.tables[prefix].kind.upper()
        return f"the source has it as {kind}, whose numbers no format of compressed-tensors has"

    @cached_property
    def _specs(self) -> dict[str, TensorSpec]:
        specs = dict(super()._specs)
        for prefix, table in self.tables.items():
            for name in [name for name in specs if name.startswith(f"{prefix}.weight")]:
                del specs[name]
            name = f"{prefix}.weight"
            specs[name] = TensorSpec(name=name, shape=table.shape, dtype=SAFETENSORS[self.dtype])
        return specs

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        """Dense tensors, in the order of `names`."""
        import torch

        wanted = list(names)
        tables = {name: name.removesuffix(".weight") for name in wanted}
        tables = {n: p for n, p in tables.items() if n.endswith(".weight") and p in self.tables}
        found = super().read([name for name in wanted if name not in tables], device=device)
        dtype: torch.dtype = getattr(torch, self.dtype)
        for name, prefix in tables.items():
            found[name] = self.looked_up(prefix, device=device).to(dtype)
        return {name: found[name] for name in wanted}

    def looked_up(self, prefix: str, *, device: str = "cpu") -> Tensor:
        """A four-bit weight, float32 [out, in]."""
        import torch

        table, name = self.tables[prefix], f"{prefix}.weight"
        parts = ["", ".absmax", ".quant_map"]
        parts += [".nested_absmax", ".nested_quant_map"] if table.nested else []
        stored = self.source.read([f"{name}{part}" for part in parts], device=device)
        with misfits(prefix):
            scale = stored[f"{name}.absmax"]
            if table.nested:
                outer = stored[f"{name}.nested_absmax"].repeat_interleave(table.nested)
                inner = stored[f"{name}.nested_quant_map"][scale.int()]
                scale = inner * outer[: len(inner)] + table.offset
            packed = stored[name].flatten()
            codes = torch.stack((packed >> 4, packed & 15), dim=1).flatten()
            count = table.shape[0] * table.shape[1]
            values = stored[f"{name}.quant_map"][codes[:count].int()]
            spread = scale.float().repeat_interleave(table.block)[:count]
            return (values * spread).reshape(table.shape)
