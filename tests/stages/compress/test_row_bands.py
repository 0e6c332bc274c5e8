"""A large weight, some rows at a time, becomes what it becomes as a whole, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stages.compress.modifiers.rtn import Rtn
from stages.compress.rtn_streaming import direct_in_bands
from stages.compress.solvers.rtn_fused import direct
from stages.compress.stage import CompressConfig
from stages.weights.row_bands import InMemory
from stages.weights.safetensors_file import Scratch
from tests.stages.compress.layers import compress
from tests.stages.compress.solvers.test_rtn_fused import SCHEMES, weights, weights_of
from tests.stages.compress.test_rtn_streaming import WIDE, files, spoil
from tests.stages.model.tiny import Tiny, tiny
from tests.stages.schemes.presets import load


@dataclass(frozen=True, slots=True)
class Cut(InMemory):
    """A tensor in bands of about 50 rows, each of which overwrites the one before."""

    scratch: Scratch

    def bands(self, multiple: int = 1) -> Iterator[tuple[int, int]]:
        step = max(1, 50 // multiple) * multiple
        for start in range(0, self.shape[0], step):
            yield start, min(self.shape[0], start + step)

    def read(self, start: int, stop: int) -> Tensor:
        part = self.tensor[start:stop]
        lent = torch.from_numpy(self.scratch.take(part.nbytes)).view(part.dtype).view(part.shape)
        return lent.copy_(part)


@pytest.mark.parametrize("which", ["plain", "uneven"])
@pytest.mark.parametrize(("layout", "args"), SCHEMES)
def test_everything_is_as_of_the_whole(layout: str, args: dict[str, Any], which: str) -> None:
    weight, given = weights()[which], weights_of(layout, args)
    put: dict[int, Tensor] = {}

    def keep(first: int, codes: Tensor) -> None:
        put[first] = codes.view(torch.uint8).clone()

    made = direct_in_bands(Cut(weight, Scratch()), *given, keep, Scratch().take)
    whole = direct(weight, *given)
    assert made is not None and whole is not None and len(put) > 1
    joined = torch.cat([put[first] for first in sorted(put)])
    assert torch.equal(joined, whole.codes.view(torch.uint8))
    assert (made.codes.shape, made.codes.dtype) == (whole.codes.shape, whole.codes.dtype)
    assert made.codes.is_meta
    assert torch.equal(made.scale, whole.scale)
    assert torch.equal(made.rows, whole.rows) and torch.equal(made.columns, whole.columns)
    assert made.relative_error == whole.relative_error


@pytest.mark.parametrize("row", [0, 256])
def test_one_entry_that_is_not_finite_spoils_all(row: int) -> None:
    weight = weights()["plain"].clone()
    weight[row, 3] = float("nan")
    for layout, args in SCHEMES[:3]:
        cut, given = Cut(weight, Scratch()), weights_of(layout, args)
        assert direct_in_bands(cut, *given, lambda *_: None, Scratch().take) is None


@pytest.fixture
def llama(tmp_path: Path) -> Tiny:
    return tiny("llama", tmp_path / "model", dtype=torch.bfloat16, **WIDE)


def cut_small(patch: pytest.MonkeyPatch) -> None:
    """Every matrix counts as large."""
    for module in ("stages.weights.row_bands", "stages.compress.rtn_streaming"):
        patch.setattr(f"{module}.WIDE", 0)
    patch.setattr("stages.weights.row_bands.BAND", 5000)


@pytest.mark.parametrize("scheme", ["fp8_dynamic", "fp8_block", "w4a16", "w8a8"])
def test_the_files_of_a_layer_are_the_same(
    scheme: str, llama: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CompressConfig(scheme=load(scheme))
    whole = compress(llama, config, tmp_path / "whole")
    cut_small(monkeypatch)
    assert files(compress(llama, config, tmp_path / "cut")) == files(whole)


def test_a_weight_that_is_not_finite_still_has_its_policy(
    llama: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(llama, row=100, value=float("inf"))
    config = CompressConfig(scheme=load("fp8_dynamic"), modifiers=(Rtn(on_failure="skip"),))
    whole = compress(llama, config, tmp_path / "whole")
    cut_small(monkeypatch)
    assert files(compress(llama, config, tmp_path / "cut")) == files(whole)
