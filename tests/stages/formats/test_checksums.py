"""Checksums over bits: against sums by torch, and of stored codes against what is unpacked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

from stages.compress.solvers.rtn_fused import direct
from stages.formats.checksums import bit_sums
from stages.formats.int_packing import pack_rows, unpack_rows
from stages.formats.pack import unpack
from tests.stages.compress.solvers.test_rtn_fused import SCHEMES, parts_of, scheme_of, weights
from tests.stages.formats.whole import stored_sums


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_sums_are_those_of_the_bits_modulo_two_to_the_32(dtype: torch.dtype) -> None:
    weight = (torch.randn(70, 33, generator=torch.Generator().manual_seed(0)) * 9).to(dtype)
    word = {2: torch.int16, 4: torch.int32}[weight.element_size()]
    bits = weight.view(word).long() % 2 ** (8 * weight.element_size())
    sums = bit_sums(weight)
    assert torch.equal(sums["rows"], bits.sum(dim=1) % 2**32)
    assert torch.equal(sums["columns"], bits.sum(dim=0) % 2**32)


def test_zeros_of_both_signs_are_alike_and_everything_else_differs() -> None:
    weight = torch.zeros(3, 4, dtype=torch.bfloat16)
    assert torch.equal(bit_sums(weight)["rows"], bit_sums(-weight)["rows"])
    other = weight.clone()
    other[1, 2] = 2.0**-133
    assert not torch.equal(bit_sums(weight)["rows"], bit_sums(other)["rows"])


@pytest.mark.parametrize(("layout", "args"), SCHEMES)
def test_stored_codes_have_the_sums_of_what_they_unpack_to(layout, args) -> None:  # type: ignore[no-untyped-def]
    weight, scheme = weights()["plain"], scheme_of(layout, args)
    made = direct(weight, scheme.weights, layout)
    assert made is not None
    stored = parts_of(made, tuple(weight.shape), layout)
    sums, whole = stored_sums(stored, scheme, torch.bfloat16), bit_sums(unpack(stored, scheme))
    assert sums is not None
    assert torch.equal(sums["rows"], whole["rows"])
    assert torch.equal(sums["columns"], whole["columns"])
    assert torch.equal(sums["rows"], made.rows)
    main = stored.get("weight_packed", stored.get("weight"))
    assert main is not None
    main.view(torch.uint8)[100, 5] ^= 1
    changed = stored_sums(stored, scheme, torch.bfloat16)
    assert changed is not None
    assert not torch.equal(changed["rows"], made.rows)


def test_tensors_that_do_not_fit_the_format_are_refused() -> None:
    scheme = scheme_of("pack-quantized", SCHEMES[8][1])
    made = direct(weights()["plain"], scheme.weights, "pack-quantized")
    assert made is not None
    stored = parts_of(made, (257, 384), "pack-quantized")
    with pytest.raises(ValueError, match="weight_scale has the shape"):
        scale = stored["weight_scale"][:, :-1]
        stored_sums({**stored, "weight_scale": scale}, scheme, torch.bfloat16)
    with pytest.raises(ValueError, match=r"weight_packed is torch\.int32 \["):
        shape = torch.tensor([257, 480])
        stored_sums({**stored, "weight_shape": shape}, scheme, torch.bfloat16)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("columns", [1, 31, 64, 77])
def test_packed_words_are_those_of_compressed_tensors(bits: int, columns: int) -> None:
    half = 1 << (bits - 1)
    draw = torch.Generator().manual_seed(bits)
    codes = torch.randint(-half, half, (5, columns), generator=draw).to(torch.int8)
    theirs = pack_to_int32(codes, bits)
    words = np.zeros(tuple(theirs.shape), dtype=np.uint32)
    pack_rows(codes.numpy(), bits, words)
    assert np.array_equal(words, theirs.numpy().view(np.uint32))
    back = np.empty(tuple(codes.shape), dtype=np.uint8)
    unpack_rows(words, bits, back)
    assert np.array_equal(back.astype(np.int16) - half, codes.numpy())
