"""Checkpoints that other writers wrote read as these writers' own code decodes them, to the bit.

`written/data` has them with the sha256 of the decoded weights; `written/makers` made them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from stages.quantized.bitsandbytes import OF_127, BitsAndBytesSource
from stages.quantized.source import QuantizedSource
from stages.quantized.stored_weight import Stored
from tests.stages.quantized.checkpoints import reading
from tests.stages.quantized.written.makers.tiny import DATA, sha256

NAMES = sorted(path.parent.name for path in DATA.glob("*/decoded.json"))


def reciprocal_first(stored: Stored) -> Tensor:
    """auto-round multiplies codes by the global scale's reciprocal, then by their block's scale."""
    assert stored.global_scale is not None
    codes = stored.codes * (1 / stored.global_scale)
    return replace(stored, global_scale=None, codes=codes).weight()


def bfloat16_scales(stored: Stored) -> Tensor:
    """auto-round's layer has bfloat16 buffers for the float32 scales of FP8, and rounds them."""
    return replace(stored, scale=stored.scale.bfloat16()).weight()


def rows_last(stored: Stored) -> Tensor:
    """bitsandbytes multiplies codes by the largest magnitude of their row, then by 1 / 127."""
    whole = stored.scale / torch.tensor(OF_127)
    return stored.codes.float() * whole * OF_127


ARITHMETIC: dict[str, tuple[Callable[[Stored], Tensor], float]] = {
    "auto_round_nvfp4": (reciprocal_first, 2.0**-22),
    "bitsandbytes_int8": (rows_last, 2.0**-22),
    "auto_round_fp8_static": (bfloat16_scales, 2.0**-8),
}
"""Writers whose own code says other numbers than their tensors, and by how much (relative)."""


def stated(name: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((DATA / name / "decoded.json").read_text())
    return found


def source_of(name: str) -> QuantizedSource:
    return reading(DATA / name)


@pytest.mark.parametrize("name", NAMES)
def test_every_quantized_weight_is_the_writers_own(name: str) -> None:
    expected = stated(name)
    source = source_of(name)
    decode, bound = ARITHMETIC.get(name, (Stored.weight, 0.0))
    dtype: torch.dtype = getattr(torch, str(expected["dtype"]))
    tables = source.tables if isinstance(source, BitsAndBytesSource) else {}
    assert {*source.modules, *tables} == expected["sha256"].keys()
    for module, digest in expected["sha256"].items():
        if module in tables:
            assert sha256(source.read([f"{module}.weight"])[f"{module}.weight"]) == digest, module
            continue
        stored = source.stored(module)
        theirs = decode(stored)
        assert sha256(theirs.to(dtype)) == digest, module
        ours = stored.weight()
        assert bool(((ours - theirs).abs() <= bound * theirs.abs()).all())


@pytest.mark.parametrize("name", NAMES)
def test_all_other_tensors_are_as_they_were(name: str) -> None:
    source = source_of(name)
    read = source.read(source.specs())
    assert set(read) == set(source.specs())
    shapes = {tuple(tensor.shape) == source.specs()[n].shape for n, tensor in read.items()}
    assert shapes == {True}
