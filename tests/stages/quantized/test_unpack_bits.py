"""Codes come out of words as compressed-tensors and numpy put them in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from hypothesis import given
from hypothesis import strategies as st

from stages.quantized.unpack_bits import PLANES, unpacked, unpacked_planes
from tests.stages.quantized.packers import stream


@given(
    bits=st.integers(2, 8),
    count=st.integers(1, 100),
    width=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_a_stream_of_any_length_is_read_back(bits: int, count: int, width: int, seed: int) -> None:
    half = 1 << bits - 1
    codes = np.random.default_rng(seed).integers(-half, half, (count, width))
    words = torch.from_numpy(stream(codes + half, bits).copy())
    assert torch.equal(unpacked(words, bits, count), torch.from_numpy(codes).to(torch.int8))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("count", [1, 31, 32, 96, 100])
def test_what_compressed_tensors_packs_is_read_back(bits: int, count: int) -> None:
    half = 1 << bits - 1
    codes = torch.randint(-half, half, (7, count), generator=torch.Generator().manual_seed(bits))
    words = pack_to_int32(codes.to(torch.int8), bits)
    assert torch.equal(unpacked(words.T, bits, count).T, codes.to(torch.int8))


@pytest.mark.parametrize("bits", range(2, 9))
def test_planes_are_read_back(bits: int) -> None:
    half = 1 << bits - 1
    codes = np.random.default_rng(bits).integers(0, 2 * half, (96, 5))
    words = []
    for block in codes.reshape(3, 32, 5):
        low = 0
        for width in PLANES[bits]:
            words.append(stream(block >> low & ((1 << width) - 1), width))
            low += width
        assert low == bits
    found = unpacked_planes(torch.from_numpy(np.concatenate(words)), bits, 96)
    assert torch.equal(found, torch.from_numpy(codes - half).to(torch.int8))
