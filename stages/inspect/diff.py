"""Run a comparison: what differs between two checkpoints, module by module, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.errors import UserError
from stages.inspect.checkpoint import Checkpoint, open_folder
from stages.inspect.differences import Change, decoded_change, stored_change
from stages.inspect.formats import format_of
from stages.inspect.names import joined, pattern
from stages.inspect.statistics import Grams
from stages.quantized.source import misfits

SCHEMA = 1
MOST_NAMES = 200
"""Names of tensors of one side only that are listed."""
HEAD, EMBEDDING = "lm_head.weight", "embed_tokens.weight"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two checkpoints: dense names -> how each is stored."""

    checkpoint: Checkpoint
    formats: Mapping[str, str]

    def decoded(self, name: str) -> Tensor:
        """A dense tensor as it decodes, float32 for quantized weights."""
        reader, prefix = self.checkpoint.reader, name.removesuffix(".weight")
        if reader is None:
            return self.checkpoint.saved.read([name])[name]
        if self.quantized(name):
            with misfits(prefix):
                return reader.stored(prefix).weight()
        return reader.read([name])[name]

    def quantized(self, name: str) -> bool:
        """Whether a dense name stands for a quantized module."""
        return name.endswith(".weight") and name.removesuffix(".weight") in self.checkpoint.modules

    def named(self, name: str) -> str | None:
        """The name here of a dense tensor: a tied head is the embedding; None if it is not here."""
        if name in self.formats:
            return name
        tied = self.checkpoint.settings.get("tie_word_embeddings", True)
        if name == HEAD and tied:
            return next((own for own in self.formats if own.endswith(EMBEDDING)), None)
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Tensors whose names differ in numbers only, stored alike, all equal or all not."""

    names: tuple[str, ...]
    formats: tuple[str, str]
    change: Change
    worst: str
    """The name of the one with the largest difference."""

    def as_json(self) -> dict[str, Any]:
        change = self.change
        return {
            "name": joined(self.names),
            "tensors": list(self.names),
            "formats": list(self.formats),
            **asdict(change),
            "relative": change.relative,
            "output": change.output,
            "worst": self.worst,
        }


def compare(
    paths: tuple[Path, Path],
    *,
    tolerance: float,
    grams: Grams | None,
    told: Callable[[float, str], None],
) -> dict[str, Any]:
    """What differs between two model folders; the second is compared with the first.

    `differs` is true where a tensor's relative difference is beyond `tolerance` (at 0: where any
    decoded number is not the same), where shapes differ, or one of the two has tensors of its own.
    Raises UserError where one of them cannot be read or decoded.
    """
    one, other = (side_of(path) for path in paths)
    rows: dict[tuple[object, ...], Row] = {}
    shapes: list[str] = []
    pairs = list(_pairs(one, other))
    for count, (name, own) in enumerate(pairs):
        told(count / len(pairs), name)
        a, b = one.decoded(name), other.decoded(own)
        if a.shape != b.shape:
            shapes.append(f"{name}: {list(a.shape)} and {list(b.shape)}")
            continue
        row = _row(one, other, name, own, decoded_change(a, b, _gram(grams, name)))
        key = (pattern(name), row.formats, row.change.weights.different > 0)
        rows[key] = row if key not in rows else _together(rows[key], row)
    matched = {own for _, own in pairs}
    alone = (
        [name for name in one.formats if other.named(name) is None],
        [n for n in other.formats if n not in matched and one.named(n) is None],
    )
    found = list(rows.values())
    return {
        "schema": SCHEMA,
        "checkpoints": [str(path) for path in paths],
        "methods": [one.checkpoint.method, other.checkpoint.method],
        "tolerance": tolerance,
        "differs": bool(shapes) or any(alone) or any(beyond(r.change, tolerance) for r in found),
        "tensors": len(pairs),
        "different": sum(len(r.names) for r in found if r.change.weights.different),
        "statistics": None if grams is None else grams.where,
        "rows": [row.as_json() for row in found],
        "shapes": shapes,
        "alone": [names[:MOST_NAMES] for names in alone],
    }


def beyond(change: Change, tolerance: float) -> bool:
    """Whether a difference counts: any at all for a tolerance of 0."""
    return bool(change.weights.different) and (not tolerance or change.relative > tolerance)


def side_of(path: Path) -> Side:
    """A model folder, opened for comparison; UserError where it cannot be decoded."""
    if path.suffix == ".gguf":
        raise UserError(
            f"{path} is a GGUF file, whose tensors have other names and layouts",
            remedy="compare what is made of it: model=gguf model.path=FILE save.compressed=false",
        )
    checkpoint = open_folder(path)
    if checkpoint.unread:
        raise UserError(f"{path} cannot be decoded: {checkpoint.unread}")
    reader = checkpoint.reader
    if reader is None:
        formats = {name: spec.dtype for name, spec in checkpoint.specs.items()}
        return Side(checkpoint=checkpoint, formats=formats)
    formats = {name: spec.dtype for name, spec in reader.specs().items()}
    for prefix, module in checkpoint.modules.items():
        formats[f"{prefix}.weight"] = format_of(checkpoint, reader, module).label
    return Side(checkpoint=checkpoint, formats=formats)


def _pairs(one: Side, other: Side) -> Iterator[tuple[str, str]]:
    """Names of the first, each with its name in the second."""
    for name in one.formats:
        own = other.named(name)
        if own is not None:
            yield name, own


def _row(one: Side, other: Side, name: str, own: str, change: Change) -> Row:
    a, b = one.checkpoint.reader, other.checkpoint.reader
    if a is not None and b is not None and one.quantized(name) and other.quantized(own):
        codes, scales = stored_change(
            a.stored(name.removesuffix(".weight")), b.stored(own.removesuffix(".weight"))
        )
        change = replace(change, codes=codes, scales=scales)
    formats = (one.formats[name], other.formats[own])
    return Row(names=(name,), formats=formats, change=change, worst=name)


def _together(one: Row, other: Row) -> Row:
    worst = one if one.change.largest >= other.change.largest else other
    return replace(
        one,
        names=one.names + other.names,
        change=one.change + other.change,
        worst=worst.worst,
    )


def _gram(grams: Grams | None, name: str) -> Tensor | None:
    return None if grams is None else grams.of(name.removesuffix(".weight"))
