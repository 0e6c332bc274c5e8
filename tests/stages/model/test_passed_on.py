"""Activations between the layers of one node: in memory within a quarter of it, else in files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from stages.model.boundary import Boundary
from stages.model.boundary_activations import PassedOn

HIDDEN = torch.arange(24.0).reshape(2, 3, 4).to(torch.bfloat16)


@pytest.mark.parametrize(
    ("total", "files"), [(4 * 3 * HIDDEN.nbytes, 0), (4 * 3 * HIDDEN.nbytes - 1, 3)]
)
def test_what_fits_a_quarter_of_the_memory_stays_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, files: int
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=total))
    passed = PassedOn(tmp_path / "scratch", 3)
    for layer in range(2):
        for batch in range(3):
            if layer:
                assert torch.equal(passed.take(batch, device="cpu").hidden, HIDDEN + batch)
            passed.put(batch, Boundary.plain(HIDDEN + batch + layer))
    assert len(list(tmp_path.rglob("*.safetensors"))) == files
    assert torch.equal(passed.take(2, device="cpu").hidden, HIDDEN + 3)


def test_what_passes_keeps_no_larger_tensor_alive(tmp_path: Path) -> None:
    large = torch.zeros(100, 2, 3, 4)
    passed = PassedOn(tmp_path, 1)
    passed.put(0, Boundary.plain(large[0]))
    assert passed.take(0, device="cpu").hidden.untyped_storage().nbytes() == large[0].nbytes
