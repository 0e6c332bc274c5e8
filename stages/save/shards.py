"""Write or link the safetensors shards of a checkpoint, and their index."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.formats.layer_artifact import SHARD
from stages.weights import TensorSpec, WeightSource
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.writer import copy_tensors, link

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 1 << 29
"""Approximate limit of the size of files that are not linked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One file to write: some tensors of a source. `file`, if given, has just these: link it."""

    source: WeightSource
    specs: Sequence[TensorSpec]
    file: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """Written weight files: name -> specs of its tensors."""

    files: Mapping[str, Sequence[TensorSpec]]

    @property
    def bytes(self) -> int:
        """Bytes of all tensors, without headers."""
        return sum(spec.bytes for specs in self.files.values() for spec in specs)


def parts_of(
    specs: Iterable[TensorSpec], source: WeightSource, limit: int | None = None
) -> Iterator[Part]:
    """Split tensors of a source into files of at most `limit` bytes, or of a single tensor."""
    most = SHARD_BYTES if limit is None else min(limit, SHARD_BYTES)
    part: list[TensorSpec] = []
    for spec in specs:
        if part and sum(other.bytes for other in part) + spec.bytes > most:
            yield Part(source=source, specs=part)
            part = []
        part.append(spec)
    if part:
        yield Part(source=source, specs=part)


def shard_parts(layer: Path, limit: int | None = None) -> Iterator[Part]:
    """The files for a compressed layer: its shard itself, if that is within `limit`."""
    yield from file_parts(layer / SHARD, limit)


def file_parts(path: Path, limit: int | None = None) -> Iterator[Part]:
    """The files for the tensors of one file: that file itself, if it is within `limit`."""
    source = SafetensorsSource.of_file(path)
    specs = list(source.specs().values())
    if limit is None or len(specs) < 2 or sum(spec.bytes for spec in specs) <= limit:
        yield Part(source=source, specs=specs, file=path)
    else:
        yield from parts_of(specs, source, limit)


def write_shards(
    folder: Path, parts: Sequence[Part], progress: Callable[[float, str], None]
) -> Written:
    """Write or link every part in order, with an index; file names are those of transformers.

    Memory holds two tensors, or pieces of them, of a file that is not linked.
    """
    total = len(parts)
    files: dict[str, Sequence[TensorSpec]] = {}
    for number, part in enumerate(parts, start=1):
        name = f"model-{number:05d}-of-{total:05d}.safetensors"
        progress(len(files) / total, name)
        if part.file is not None:
            link(part.file, folder / name)
        else:
            copy_tensors(folder / name, part.specs, part.source)
        files[name] = part.specs
    written = Written(files=files)
    _write_index(folder, written)
    return written


def _write_index(folder: Path, written: Written) -> None:
    places = {spec.name: name for name, specs in written.files.items() for spec in specs}
    index = {
        "metadata": {"total_size": written.bytes},
        "weight_map": dict(sorted(places.items())),
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
