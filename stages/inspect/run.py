"""Run an inspection: all that is told of one checkpoint, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from stages.inspect.checkpoint import Checkpoint, open_folder
from stages.inspect.conventions import conventions
from stages.inspect.gguf import inspect_gguf
from stages.inspect.loads import loaders
from stages.inspect.names import joined, pattern
from stages.inspect.producer import producers
from stages.inspect.rows import rows_of
from stages.weights import TensorSpec

SCHEMA = 1


def inspect(path: Path, told: Callable[[float, str], None]) -> dict[str, Any]:
    """What is in a checkpoint folder or a GGUF file; see `stages/docs/inspect.md` for the keys.

    Raises UserError or ManyErrors where its files cannot be read.
    """
    found = inspect_gguf(path, told) if path.suffix == ".gguf" else _folder(path, told)
    return {"schema": SCHEMA, "checkpoint": str(path), **found}


def _folder(path: Path, told: Callable[[float, str], None]) -> dict[str, Any]:
    checkpoint = open_folder(path)
    rows = rows_of(checkpoint, told)
    dense = dense_rows(checkpoint.dense())
    weights = sum(row.figures.weights for row in rows)
    size = sum(row.bytes for row in rows)
    architectures = checkpoint.settings.get("architectures")
    return {
        "architecture": str(architectures[0])
        if isinstance(architectures, list) and architectures
        else None,
        "method": checkpoint.method,
        "stated_in": checkpoint.stated_in,
        "producers": [
            {"name": each.name, "version": each.version, "evidence": each.evidence}
            for each in producers(path, checkpoint.settings, checkpoint.quantization)
        ],
        "bytes": size + sum(row["bytes"] for row in dense),
        "quantized": {
            "modules": len(checkpoint.modules),
            "weights": weights,
            "bytes": size,
            "bits_per_weight": 8 * size / weights if weights else None,
        },
        "rows": [row.as_json() for row in rows],
        "dense": dense,
        "conventions": [c.as_json() for c in conventions(rows, checkpoint.quantization)],
        "loads": [each.as_json() for each in loaders(checkpoint, rows)],
        "notes": notes(checkpoint),
    }


def notes(checkpoint: Checkpoint) -> list[str]:
    """What a reader of the inspection has to know beside its numbers."""
    if checkpoint.unread:
        return [f"the quantized weights were not decoded: {checkpoint.unread}"]
    if checkpoint.method is not None and not checkpoint.modules:
        return [
            "no quantized module was found by its own tensors: what is stored fused is listed "
            "among the tensors"
        ]
    return []


def dense_rows(specs: Mapping[str, TensorSpec]) -> list[dict[str, Any]]:
    """Tensors outside quantized modules, those whose names differ in numbers only together."""
    rows: dict[tuple[str, str], list[TensorSpec]] = {}
    for name, spec in specs.items():
        rows.setdefault((pattern(name), spec.dtype), []).append(spec)
    return [
        {
            "name": joined(spec.name for spec in found),
            "tensors": len(found),
            "dtype": dtype,
            "elements": sum(prod(spec.shape) for spec in found),
            "bytes": sum(spec.bytes for spec in found),
        }
        for (_, dtype), found in rows.items()
    ]
