"""Activations at the boundary of two layers, on disk: one file per batch, one batch in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import StageFailed
from pipeline.stage import Artifact
from stages.model.artifact_names import HIDDEN, TOKENS


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """A batch of token rows: ids int64 [b, T], lengths int64 [b]; `count` is that of batches."""

    index: int
    count: int
    ids: Tensor
    lengths: Tensor

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
        rows = ids.get_shape()[0]
        for index, start in enumerate(range(0, rows, size)):
            stop = min(start + size, rows)
            yield Batch(
                index=index,
                count=-(-rows // size),
                ids=ids[start:stop].long(),
                lengths=lengths[start:stop].long(),
            )


def write_activations(folder: Path, index: int, hidden: Tensor) -> None:
    """Write the activations [b, T, hidden] of batch `index`."""
    save_file({HIDDEN: hidden.cpu().contiguous()}, folder / _file(index))


def read_activations(artifact: Artifact, batch: Batch, *, device: str = "cpu") -> Tensor:
    """The activations [b, T, hidden] of one batch.

    Raises StageFailed if they were made for batches of another shape.
    """
    hidden = load_file(artifact.file(_file(batch.index)), device=device)[HIDDEN]
    if hidden.shape[:2] != batch.ids.shape:
        raise StageFailed(
            f"activations of batch {batch.index} are {list(hidden.shape)}, "
            f"its tokens are {list(batch.ids.shape)}",
            remedy="give the nodes that make and read them the same batch_size",
        )
    return hidden


def _file(index: int) -> str:
    return f"{index:04d}.safetensors"
