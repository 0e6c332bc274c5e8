"""Packing and unpacking give back every code, for every width in bits and odd shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stages.compress.grid import QParams, grid_of
from stages.compress.solvers.rtn import nearest
from stages.formats.input_params import InputParams
from stages.formats.int_packing import _words_by_torch, words_of_codes
from stages.formats.pack import compressor, pack, unpack

FAST = settings(max_examples=40, deadline=None, database=None)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 71))
seeds = st.integers(0, 2**32 - 1)


def codes_of(bits: int, shape: tuple[int, int], seed: int) -> Tensor:
    """Random signed codes of so many bits, both ends among them."""
    make = torch.Generator().manual_seed(seed)
    half = 1 << (bits - 1)
    codes = torch.randint(-half, half, shape, generator=make)
    codes.view(-1)[0], codes.view(-1)[-1] = -half, half - 1
    return codes.to(torch.int8)


def from_stream(words: Tensor, bits: int, count: int) -> list[int]:
    """The codes of one row of words, read as one long number: lowest bits first."""
    stream = int.from_bytes(words.contiguous().numpy().tobytes(), "little")
    mask, half = (1 << bits) - 1, 1 << (bits - 1)
    return [(stream >> (bits * index) & mask) - half for index in range(count)]


@pytest.mark.parametrize("bits", range(1, 9))
@FAST
@given(shape=shapes, seed=seeds)
def test_packed_words_are_one_stream_of_bits(bits: int, shape: tuple[int, int], seed: int) -> None:
    codes = codes_of(bits, shape, seed)
    words = pack_to_int32(codes, bits)
    assert words.dtype == torch.int32 and words.shape == (shape[0], -(-shape[1] * bits // 32))
    assert [from_stream(row, bits, shape[1]) for row in words] == codes.tolist()
    assert torch.equal(words_of_codes(codes, bits), words)
    assert torch.equal(_words_by_torch(codes, bits), words)
    assert torch.equal(unpack_from_int32(words, bits, torch.Size(shape)), codes)


def scheme_of(bits: int, symmetric: bool, groups: int | None, layout: str) -> QuantizationScheme:
    """Integers by channel, or in groups of so many columns."""
    how: dict[str, Any] = {"strategy": "channel"}
    if groups is not None:
        how = {"strategy": "group", "group_size": groups}
    args = QuantizationArgs(num_bits=bits, symmetric=symmetric, **how)
    return QuantizationScheme(targets=["Linear"], weights=args, format=layout)


def packed(
    weight: Tensor, scale: Tensor, zero: Tensor | None, scheme: QuantizationScheme
) -> dict[str, Tensor]:
    assert scheme.weights is not None
    qparams = QParams(scale=scale, zero_point=zero, global_scale=None)
    codes, _ = nearest(weight, qparams, grid_of(scheme.weights))
    return pack(
        codes,
        scale=scale,
        zero_point=zero,
        global_scale=None,
        inputs=InputParams(),
        scheme=scheme,
    )


def through(
    weight: Tensor, scale: Tensor, zero: Tensor | None, scheme: QuantizationScheme
) -> Tensor:
    return unpack(packed(weight, scale, zero, scheme), scheme)


@pytest.mark.parametrize("layout", ["pack-quantized", "int-quantized"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
@settings(max_examples=15, deadline=None, database=None)
@given(shape=shapes, seed=seeds, groups=st.sampled_from([None, 1, 3, 8]))
def test_a_weight_on_its_grid_comes_back_to_the_bit(
    bits: int,
    symmetric: bool,
    layout: str,
    shape: tuple[int, int],
    seed: int,
    groups: int | None,
) -> None:
    rows, columns = shape[0], shape[1] * (groups or 1)
    codes = codes_of(bits, (rows, columns), seed).float()
    make = torch.Generator().manual_seed(seed)
    width = groups or columns
    # powers of two: products are exact
    scale = 2.0 ** torch.randint(-8, 3, (rows, columns // width), generator=make).float()
    zero = None
    if not symmetric:
        half = 1 << (bits - 1)
        zero = torch.randint(-half, half, scale.shape, generator=make).to(torch.int8)
        codes = codes - zero.repeat_interleave(width, dim=1).float()
    weight = codes * scale.repeat_interleave(width, dim=1)
    scheme = scheme_of(bits, symmetric, groups, layout)
    assert torch.equal(through(weight, scale, zero, scheme).float(), weight)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
@FAST
@given(shape=shapes, seed=seeds, groups=st.sampled_from([None, 1, 3, 8]))
def test_what_is_packed_is_what_compressed_tensors_packs_also_off_the_grid(
    bits: int, symmetric: bool, shape: tuple[int, int], seed: int, groups: int | None
) -> None:
    make = torch.Generator().manual_seed(seed)
    rows, columns = shape[0], shape[1] * (groups or 1)
    weight = torch.randn(rows, columns, generator=make) * 0.1
    counts = (rows, 1 if groups is None else columns // groups)
    scale = (torch.rand(counts, generator=make) * 0.05 + 1e-3).bfloat16()
    half = 1 << (bits - 1)
    zero = torch.randint(-half, half, counts, generator=make).to(torch.int8)
    scheme = scheme_of(bits, symmetric, groups, "pack-quantized")
    ours = packed(weight, scale, None if symmetric else zero, scheme)
    state = {"weight": weight, "weight_scale": scale}
    state |= {} if symmetric else {"weight_zero_point": zero}
    theirs = compressor(scheme).compress(state, scheme)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert tensor.dtype == ours[name].dtype and torch.equal(tensor, ours[name]), name
