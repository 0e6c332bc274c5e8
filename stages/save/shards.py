"""Write or link the safetensors shards of a checkpoint, and their index.

With a limit, the tensors of all parts fill one file after the other, in the order of the model: a
model within the limit is `model.safetensors`, without an index. Without one, every layer's own file
is linked into the checkpoint, so that nothing is copied.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.formats.layer_artifact import SHARD
from stages.weights import TensorSpec, WeightSource
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.writer import copy_tensors, gather, link

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
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


def parts_of(specs: Iterable[TensorSpec], source: WeightSource) -> Iterator[Part]:
    """Split tensors of a source into parts of about SHARD_BYTES, or of a single tensor."""
    part: list[TensorSpec] = []
    for spec in specs:
        if part and sum(other.bytes for other in part) + spec.bytes > SHARD_BYTES:
            yield Part(source=source, specs=part)
            part = []
        part.append(spec)
    if part:
        yield Part(source=source, specs=part)


def shard_part(layer: Path) -> Part:
    """The shard of a compressed layer."""
    return file_part(layer / SHARD)


def file_part(path: Path) -> Part:
    """All tensors of one file."""
    source = SafetensorsSource.of_file(path)
    return Part(source=source, specs=list(source.specs().values()), file=path)


Content = list[tuple[WeightSource, TensorSpec]]
"""The tensors of one file, each with where it is."""


def packed(parts: Iterable[Part], limit: int) -> list[Content]:
    """What each file holds: at most `limit` bytes of tensors, or a single one, in order."""
    files: list[Content] = []
    room = 0
    for part in parts:
        for spec in part.specs:
            if not files or spec.bytes > room:
                files.append([])
                room = limit
            files[-1].append((part.source, spec))
            room -= spec.bytes
    return files


def write_shards(
    folder: Path,
    parts: Sequence[Part],
    limit: int | None,
    progress: Callable[[float, str], None],
) -> Written:
    """Write all parts, with an index for more than one file; file names are those of transformers.

    limit: bytes of tensors in a file; None: a file for each part, linked where it is one already.
    Memory holds two tensors, or pieces of them, of a source that is no plain file.
    """
    if limit is None:
        return _link_parts(folder, parts, progress)
    contents = packed(parts, limit)
    total = len(contents)
    files: dict[str, Sequence[TensorSpec]] = {}
    for number, content in enumerate(contents, start=1):
        name = SINGLE if total == 1 else f"model-{number:05d}-of-{total:05d}.safetensors"
        progress(len(files) / total, name)
        gather(folder / name, content)
        files[name] = [spec for _, spec in content]
    written = Written(files=files)
    if total > 1:
        _write_index(folder, written)
    return written


def _link_parts(
    folder: Path, parts: Sequence[Part], progress: Callable[[float, str], None]
) -> Written:
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
