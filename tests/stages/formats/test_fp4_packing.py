"""E2M1 codes are those of compressed-tensors, for every value, tie and sign."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.nvfp4.helpers import pack_fp4_to_uint8, unpack_fp4_from_uint8
from compressed_tensors.quantization.utils.fp4_utils import cast_to_fp4
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.formats.fp4_packing import BOTH, fits_fp4, fp4_of, fp4_values
from stages.schemes.quant_args import QArgs

FAST = settings(max_examples=100, deadline=None, database=None)
NVFP4 = QArgs(
    num_bits=4,
    type="float",
    strategy="tensor_group",
    group_size=16,
    scale_dtype="float8_e4m3fn",
)


def test_every_bfloat16_gets_the_code_of_compressed_tensors() -> None:
    every = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).float()
    every = torch.where(every.isfinite(), every, 0.0).reshape(256, 256)
    mine = fp4_of(every, torch.ones(256, 16), None)
    theirs = pack_fp4_to_uint8(cast_to_fp4(every.clamp(-6, 6)))
    assert torch.equal(mine, theirs)


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
    assert torch.equal(fp4_of(weight, scale, total), theirs)


def test_bytes_mean_what_compressed_tensors_reads() -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(8, 32)
    theirs = unpack_fp4_from_uint8(every, 8, 64, dtype=torch.float32)
    found = fp4_values(every)
    assert torch.equal(found, theirs)
    assert torch.equal(torch.signbit(found), torch.signbit(theirs))
    assert len(np.unique(np.abs(BOTH))) == 8


@pytest.mark.parametrize(("columns", "fits"), [(32, True), (48, False), (24, False)])
def test_only_whole_groups_fit(columns: int, fits: bool) -> None:
    assert fits_fp4(torch.ones(2, columns), NVFP4) is fits
    assert not fits_fp4(torch.ones(2, columns), QArgs(num_bits=4))
