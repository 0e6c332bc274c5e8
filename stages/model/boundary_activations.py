"""Activations at the boundary of two layers: content of a file for each batch.

During a run it lies in memory where it fits; a reader has a copy of one batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from pipeline.errors import StageFailed
from pipeline.stage import Artifact, Draft
from stages.compute.estimates import PASSED_SHARE
from stages.model.artifact_names import COUNTED, TOKENS
from stages.model.boundary import Boundary
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.tensor_content import TensorContent, reader


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """A batch of token rows: ids int64 [b, T], lengths int64 [b]; `count` is that of batches.

    marks: bool [b, T], True for tokens that count in statistics; None where all do.
    """

    index: int
    count: int
    ids: Tensor
    lengths: Tensor
    marks: Tensor | None = None

    @property
    def counted(self) -> Tensor | None:
        """bool [b, T], True for tokens that count in statistics; None if all of them do."""
        valid = self.valid
        return valid if self.marks is None else self.marks if valid is None else self.marks & valid

    @property
    def valid(self) -> Tensor | None:
        """bool [b, T], False for padding; None if no row is padded."""
        width = self.ids.shape[1]
        if bool((self.lengths >= width).all()):
            return None
        return torch.arange(width)[None, :] < self.lengths[:, None]


def batches(tokens: Artifact, size: int) -> Iterator[Batch]:
    """The rows of a `tokens` result in order, `size` at a time."""
    with safe_open(tokens.file(TOKENS), framework="pt") as file:
        ids, lengths = file.get_slice("input_ids"), file.get_slice("lengths")
        marks = file.get_slice(COUNTED) if COUNTED in file.keys() else None
        rows = ids.get_shape()[0]
        for index, start in enumerate(range(0, rows, size)):
            stop = min(start + size, rows)
            yield Batch(
                index=index,
                count=-(-rows // size),
                ids=ids[start:stop].long(),
                lengths=lengths[start:stop].long(),
                marks=None if marks is None else marks[start:stop].bool(),
            )


def write_activations(draft: Draft, index: int, boundary: Boundary) -> None:
    """Add what a layer hands on for batch `index`, which must not change afterwards."""
    draft.put(_file(index), TensorContent.of(boundary.stored()))


def read_activations(artifact: Artifact, batch: Batch, *, device: str = "cpu") -> Boundary:
    """A copy of what the layer before hands on for one batch.

    Raises StageFailed if it was made for batches of another shape.
    """
    source = reader(artifact, _file(batch.index))
    boundary = Boundary.from_stored(source.read(source.specs(), device=device))
    shape = boundary.hidden.shape
    sizes = [list(shape[d : d + 2]) for d in range(len(shape) - 1)]
    if list(batch.ids.shape) not in sizes:
        raise StageFailed(
            f"activations of batch {batch.index} are {list(shape)}, "
            f"its tokens are {list(batch.ids.shape)}",
            remedy="give the nodes that make and read them the same batch_size",
        )
    return boundary


class PassedOn:
    """Activations that one layer leaves to the next within a node, batch by batch, each taken once.

    All of them lie in the first memory of which they take no more than a quarter: the device,
    then the host; else in files under `scratch`.
    """

    def __init__(self, scratch: Path, batches: int) -> None:
        self._scratch, self._batches = scratch, batches
        self._held: dict[int, TensorContent] = {}

    def put(self, index: int, boundary: Boundary) -> None:
        """Leave what a layer hands on for a batch, which must not change afterwards."""
        content = TensorContent.of(boundary.stored())
        for memory in content.memories:
            if content.bytes * self._batches <= memory.capacity // PASSED_SHARE:
                self._held[index] = content.moved(memory.name)
                return
        self._scratch.mkdir(parents=True, exist_ok=True)
        content.write(self._scratch / _file(index))

    def take(self, index: int, *, device: str) -> Boundary:
        """What was put last for a batch, on `device`."""
        if (content := self._held.pop(index, None)) is not None:
            return Boundary.from_stored({n: t.to(device) for n, t in content.tensors.items()})
        source = SafetensorsSource.of_file(self._scratch / _file(index))
        return Boundary.from_stored(source.read(source.specs(), device=device))


def _file(index: int) -> str:
    return f"{index:04d}.safetensors"
