"""E2M1 codes are those of compressed-tensors, for every value, tie and sign."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.nvfp4.helpers import pack_fp4_to_uint8, unpack_fp4_from_uint8
from compressed_tensors.quantization.utils.fp4_utils import cast_to_fp4
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stages.compress.grid import QParams, grid_of
from stages.compress.solvers.nearest_fp4 import _by_torch
from stages.compress.solvers.rtn import nearest
from stages.formats.codes import BOTH, decode, encode
from stages.formats.fp4_packing import bytes_of_codes
from stages.schemes.quant_args import QArgs

FAST = settings(max_examples=100, deadline=None, database=None)
NVFP4 = QArgs(
    num_bits=4,
    type="float",
    strategy="tensor_group",
    group_size=16,
    scale_dtype="float8_e4m3fn",
)


def codes_of(weight: Tensor, scale: Tensor, total: Tensor | None) -> Tensor:
    qparams = QParams(scale=scale, zero_point=None, global_scale=total)
    grid = replace(grid_of(NVFP4), group_size=weight.shape[1] // scale.shape[1])
    return nearest(weight, qparams, grid)[0]


def test_every_bfloat16_gets_the_code_of_compressed_tensors() -> None:
    every = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).float()
    every = torch.where(every.isfinite(), every, 0.0).reshape(256, 256)
    mine = codes_of(every, torch.ones(256, 16), None)
    theirs = pack_fp4_to_uint8(cast_to_fp4(every.clamp(-6, 6)))
    assert torch.equal(bytes_of_codes(mine), theirs)
    assert torch.equal(_by_torch(every), mine)


@FAST
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 5),
    groups=st.integers(1, 5),
    size=st.sampled_from([2, 16, 32]),
    over=st.booleans(),
)
def test_scales_divide_as_they_do_there(
    seed: int, rows: int, groups: int, size: int, over: bool
) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, groups * size, generator=draw)
    scale = torch.rand(rows, groups, generator=draw) + 0.1
    total = torch.tensor([7.5]) if over else None
    own = scale if total is None else scale / total
    quotient = weight.unflatten(1, (groups, size)) / own.unsqueeze(2)
    theirs = pack_fp4_to_uint8(cast_to_fp4(quotient.clamp(-6, 6)).flatten(1))
    assert torch.equal(bytes_of_codes(codes_of(weight, scale, total)), theirs)


def test_codes_mean_what_compressed_tensors_reads() -> None:
    every = torch.arange(16, dtype=torch.uint8).expand(8, -1).contiguous()
    theirs = unpack_fp4_from_uint8(bytes_of_codes(every), 8, 16, dtype=torch.float32)
    found = decode(every)
    assert torch.equal(found, theirs)
    assert torch.equal(torch.signbit(found), torch.signbit(theirs))
    assert len(np.unique(np.abs(BOTH))) == 8
    assert torch.equal(encode(found, NVFP4, signed_zero=True), every)
    assert torch.equal(encode(found, NVFP4), torch.where(every == 8, 0, every))


def test_an_odd_number_of_codes_fills_no_bytes() -> None:
    with pytest.raises(ValueError, match="3 columns"):
        bytes_of_codes(torch.zeros(2, 3, dtype=torch.uint8))
