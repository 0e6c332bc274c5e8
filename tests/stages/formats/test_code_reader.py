"""Codes of a checkpoint, read in pieces and row by row, are those that compressed-tensors reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.compress.solvers.rtn_fused import direct
from stages.formats import code_reader as module
from stages.formats.code_reader import PackedCodes, codes_of
from stages.schemes.quant_args import QArgs
from tests.stages.compress.solvers.test_rtn_fused import SCHEMES, parts_of, scheme_of, weights
from tests.stages.formats.test_pack_properties import codes_of as drawn
from tests.stages.formats.whole import apart, stored_sums

FAST = settings(max_examples=40, deadline=None, database=None)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 71))


@pytest.mark.parametrize("bits", range(2, 9))
@FAST
@given(shape=shapes, seed=st.integers(0, 2**32 - 1), piece=st.integers(1, 200))
def test_packed_codes_are_read_alike_in_pieces_and_by_rows(
    bits: int, shape: tuple[int, int], seed: int, piece: int
) -> None:
    signed = drawn(bits, shape, seed)
    words = pack_to_int32(signed, bits)
    stored = {"weight_packed": words, "weight_shape": torch.tensor(shape)}
    found = codes_of(*apart(stored), QArgs(num_bits=bits), "pack-quantized")
    assert isinstance(found, PackedCodes) and found.shape == shape
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", piece)
        pieces = [(first, part.copy()) for first, part in found.pieces()]
    assert [first for first, _ in pieces] == list(
        np.cumsum([0, *(len(part) for _, part in pieces[:-1])])
    )
    whole = np.concatenate([part for _, part in pieces])
    assert np.array_equal(found.values[whole], signed.numpy().astype(np.float32))
    assert np.array_equal(found.rows(0, shape[0]), whole)


@pytest.mark.parametrize(("layout", "args"), SCHEMES)
def test_sums_are_the_same_however_small_the_pieces(
    layout: str, args: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, scheme = weights()["plain"], scheme_of(layout, args)
    made = direct(weight, scheme.weights, layout)
    assert made is not None
    stored = parts_of(made, tuple(weight.shape), layout)
    monkeypatch.setattr(module, "PIECE", 3 * weight.shape[1])
    sums = stored_sums(stored, scheme, torch.bfloat16)
    assert sums is not None
    assert torch.equal(sums["rows"], made.rows) and torch.equal(sums["columns"], made.columns)


def test_loops_that_read_other_codes_than_arithmetic_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layout, args = next((layout, args) for layout, args in SCHEMES if layout == "pack-quantized")
    weight, scheme = weights()["plain"], scheme_of(layout, args)
    made = direct(weight, scheme.weights, layout)
    assert made is not None
    real = module.unpack_rows

    def wrong(words: Any, num_bits: int, out: Any) -> None:
        real(words, num_bits, out)
        out[0, 0] ^= 1

    monkeypatch.setattr(module, "unpack_rows", wrong)
    with pytest.raises(ValueError, match="in two ways"):
        stored_sums(parts_of(made, tuple(weight.shape), layout), scheme, torch.bfloat16)
