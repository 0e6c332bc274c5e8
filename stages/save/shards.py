"""The weight files of a checkpoint and their index."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file

from stages.formats.layer import SHARD
from stages.weights import TensorSpec, WeightSource
from stages.weights.safetensors_file import read_header

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 1 << 29
"""Tensors outside the layers are written in files of about this size: one file is in memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """Weight files by name -> the tensors in each."""

    files: Mapping[str, Sequence[TensorSpec]]

    @property
    def bytes(self) -> int:
        """Bytes of all tensors, headers left out."""
        return sum(spec.bytes for specs in self.files.values() for spec in specs)


def write_shards(
    folder: Path,
    layers: Sequence[Path],
    outside: Sequence[TensorSpec],
    source: WeightSource,
    progress: Callable[[float, str], None],
) -> Written:
    """Link the shards in `layers` (folders), write the `outside` tensors, and an index.

    The files are called as transformers calls them; the dense ones come first. Memory holds one
    dense file of about SHARD_BYTES, or one larger tensor.
    """
    parts = list(_parts(outside))
    total = len(parts) + len(layers)
    names = [f"model-{number:05d}-of-{total:05d}.safetensors" for number in range(1, total + 1)]
    files: dict[str, Sequence[TensorSpec]] = {}
    for name, part in zip(names, parts, strict=False):
        progress(len(files) / total, name)
        tensors = source.read([spec.name for spec in part])
        save_file(tensors, folder / name, metadata={"format": "pt"})
        files[name] = part
    for name, layer in zip(names[len(parts) :], layers, strict=True):
        progress(len(files) / total, name)
        link(layer / SHARD, folder / name)
        files[name] = [place.spec for place in read_header(folder / name).places.values()]
    written = Written(files=files)
    _write_index(folder, written)
    return written


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _parts(specs: Iterable[TensorSpec]) -> Iterator[list[TensorSpec]]:
    part: list[TensorSpec] = []
    for spec in specs:
        if part and sum(other.bytes for other in part) + spec.bytes > SHARD_BYTES:
            yield part
            part = []
        part.append(spec)
    if part:
        yield part


def _write_index(folder: Path, written: Written) -> None:
    places = {spec.name: name for name, specs in written.files.items() for spec in specs}
    index = {
        "metadata": {"total_size": written.bytes},
        "weight_map": dict(sorted(places.items())),
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
