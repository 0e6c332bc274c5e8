"""Matrices that the disk has the other way round."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from stages.quantized.turned_source import TurnedSource
from stages.weights import open_checkpoint


def test_only_the_named_ones_are_transposed(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(6.0).reshape(2, 3)}
    save_file(tensors, tmp_path / "model.safetensors")
    source = TurnedSource(open_checkpoint(tmp_path), ["a"])
    assert [source.specs()[name].shape for name in "ab"] == [(3, 2), (2, 3)]
    found = source.read(["b", "a"])
    assert list(found) == ["b", "a"]
    assert torch.equal(found["a"], tensors["a"].T) and torch.equal(found["b"], tensors["b"])
    assert b"".join(source.pieces("a")) == tensors["a"].T.contiguous().numpy().tobytes()
    assert b"".join(source.pieces("b")) == tensors["b"].numpy().tobytes()
