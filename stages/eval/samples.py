"""Token samples of the evaluation, in batches."""

from __future__ import annotations

from dataclasses import dataclass

from safetensors.torch import load_file
from torch import Tensor

from pipeline.stage import Artifact
from stages.model.artifact_names import COUNTED, TOKENS


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Token rows: ids int64 [N, T], padded on the right; lengths int64 [N]; `batch_size` rows.

    marks: bool [N, T], True for tokens whose prediction is measured; None where all are.
    """

    ids: Tensor
    lengths: Tensor
    batch_size: int
    marks: Tensor | None = None

    @staticmethod
    def load(tokens: Artifact, batch_size: int) -> Samples:
        """Read the result of a `tokens` node."""
        tensors = load_file(tokens.file(TOKENS))
        return Samples(
            ids=tensors["input_ids"].long(),
            lengths=tensors["lengths"].long(),
            batch_size=batch_size,
            marks=tensors[COUNTED].bool() if COUNTED in tensors else None,
        )

    @property
    def batches(self) -> list[slice]:
        """The rows of each batch, in order."""
        rows = len(self.ids)
        return [
            slice(start, min(start + self.batch_size, rows))
            for start in range(0, rows, self.batch_size)
        ]
