"""Rows of an inspection: the quantized modules of one kind and format together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from pipeline.errors import UserError
from stages.inspect.checkpoint import Checkpoint
from stages.inspect.figures import Figures, figures
from stages.inspect.formats import Format, format_of
from stages.inspect.names import joined, pattern
from stages.quantized.source import Module, QuantizedSource

NORMALS = {
    "F16": torch.finfo(torch.float16).smallest_normal,
    "BF16": torch.finfo(torch.bfloat16).smallest_normal,
    "F32": torch.finfo(torch.float32).smallest_normal,
    "F8_E4M3": torch.finfo(torch.float8_e4m3fn).smallest_normal,
    "F8_E5M2": torch.finfo(torch.float8_e5m2).smallest_normal,
}
"""The smallest normal number of each dtype of scales; exponents have no denormal ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Modules whose names differ in numbers only, of one format. `scale_dtype` is as stored."""

    modules: tuple[str, ...]
    format: Format
    scale_dtype: str
    figures: Figures
    bytes: int

    @property
    def name(self) -> str:
        """All its modules as one name: "model.layers.0-29.mlp.up_proj"."""
        return joined(self.modules)

    def as_json(self) -> dict[str, Any]:
        """Plain data: the format, and every figure."""
        found = asdict(self.figures)
        grid = self.format.grid
        return {
            "name": self.name,
            "modules": list(self.modules),
            "format": self.format.label,
            "layout": self.format.layout,
            "bits": grid.num_bits,
            "type": grid.type,
            "strategy": grid.strategy,
            "group_size": grid.group_size,
            "block": grid.block_structure,
            "symmetric": grid.symmetric,
            "inputs": self.format.inputs,
            "scale_dtype": self.scale_dtype,
            "bytes": self.bytes,
            "bits_per_weight": 8 * self.bytes / found["weights"] if found["weights"] else None,
            **found,
            "empty": counted_values(self.figures.empty),
            "largest": counted_values(self.figures.largest),
            "globals": _ends(self.figures.globals),
            "top_scales": _ends(self.figures.top_scales),
        }


def counted_values(counts: Mapping[float, int]) -> list[dict[str, Any]]:
    """Values with their counts, the most frequent first: infinities and NaN as text for JSON."""
    return [
        {
            "value": value if value == value and abs(value) != float("inf") else str(value),
            "count": n,
        }
        for value, n in sorted(counts.items(), key=lambda each: (-each[1], str(each[0])))
    ]


def _ends(values: tuple[float, ...]) -> list[float] | None:
    """The least and the largest; None if there is none."""
    return [min(values), max(values)] if values else None


def rows_of(checkpoint: Checkpoint, told: Callable[[float, str], None]) -> list[Row]:
    """A row for each kind of module and format, in the order of the checkpoint.

    One module is in memory at a time.
    """
    reader, rows = checkpoint.reader, dict[tuple[str, Format, str], Row]()
    if reader is None:
        return []
    for count, (prefix, module) in enumerate(checkpoint.modules.items()):
        told(count / len(checkpoint.modules), prefix)
        row = _row(checkpoint, reader, module)
        key = (pattern(prefix), row.format, row.scale_dtype)
        known = rows.get(key)
        rows[key] = row if known is None else _together(known, row)
    return list(rows.values())


def _row(checkpoint: Checkpoint, reader: QuantizedSource, module: Module) -> Row:
    scales = [
        checkpoint.specs[f"{module.prefix}.{part}"]
        for part in module.parts
        if "scale" in part and not part.startswith("input")
    ]
    dtype = max(scales, key=lambda spec: spec.bytes).dtype if scales else ""
    try:
        found = figures(reader.stored(module.prefix), NORMALS.get(dtype, 0.0))
    except RuntimeError as error:
        raise UserError(
            f"the tensors of {module.prefix} do not fit together: {error}",
            remedy="fetch the checkpoint again",
        ) from error
    return Row(
        modules=(module.prefix,),
        format=format_of(checkpoint, reader, module),
        scale_dtype=dtype,
        figures=found,
        bytes=checkpoint.bytes_of(module),
    )


def _together(one: Row, other: Row) -> Row:
    return replace(
        one,
        modules=one.modules + other.modules,
        figures=one.figures + other.figures,
        bytes=one.bytes + other.bytes,
    )
