"""Tensors in pieces read as one, and keep their own names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from stages.weights.joined_source import JoinedSource
from stages.weights.source import TensorSpec

PIECES = {"q": torch.arange(6.0).reshape(2, 3), "k": torch.ones(1, 3), "other": torch.zeros(4)}


class Held:
    def specs(self) -> Mapping[str, TensorSpec]:
        return {n: TensorSpec(name=n, shape=tuple(t.shape), dtype="F32") for n, t in PIECES.items()}

    def pieces(self, name: str) -> Iterator[memoryview]:
        yield memoryview(PIECES[name].numpy().tobytes())

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        return {name: PIECES[name].to(device) for name in names}


def test_rows_follow_each_other() -> None:
    source = JoinedSource(Held(), {"qk": ("q", "k")})
    whole = torch.cat([PIECES["q"], PIECES["k"]])
    assert source.specs()["qk"].shape == (3, 3)
    found = source.read(["qk", "other", "q"])
    assert torch.equal(found["qk"], whole) and torch.equal(found["q"], PIECES["q"])
    assert b"".join(source.pieces("qk")) == whole.numpy().tobytes()
    assert b"".join(source.pieces("k")) == PIECES["k"].numpy().tobytes()
