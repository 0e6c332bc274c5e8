"""FP6 (E2M3) in bytes: every code, both ways, and compressed-tensors' own where it packs them."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from pipeline.errors import UserError
from stages.compress.grid import grid_of, round_to
from stages.compress.observers import minmax
from stages.compress.solvers.rtn import rtn
from stages.formats.compressed_tensors_bridge import to_compressed_tensors
from stages.formats.fp6_packing import bytes_of_values, values_of_bytes
from stages.schemes.quant_args import QArgs
from tests.stages.schemes.presets import PACKS_SIX, SIX_BITS, group

MAGNITUDES = [m / 8 for m in range(8)]
MAGNITUDES += [(1 + m / 8) * 2.0**e for e in range(3) for m in range(8)]
EVERY = torch.tensor([*MAGNITUDES, *(-m for m in MAGNITUDES)])  # in the order of the codes
needs_six = pytest.mark.skipif(not PACKS_SIX, reason="compressed-tensors packs them from 0.20 on")


def test_every_number_has_its_code_four_in_three_bytes() -> None:
    packed = bytes_of_values(EVERY.view(1, 64))
    assert packed.dtype == torch.uint8 and packed.shape == (1, 48)
    bits = [int(byte) >> at & 1 for byte in packed[0] for at in range(8)]
    codes = [sum(bits[6 * i + at] << at for at in range(6)) for i in range(64)]
    assert codes == list(range(64))


def test_bytes_read_back_to_the_same_numbers_with_the_sign_of_zero() -> None:
    values = EVERY[torch.randperm(64, generator=torch.Generator().manual_seed(0))].view(4, 16)
    read = values_of_bytes(bytes_of_values(values.to(torch.float8_e4m3fn)))
    assert torch.equal(read, values) and torch.equal(read.signbit(), values.signbit())


def test_columns_that_do_not_fill_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="6 columns"):
        bytes_of_values(torch.zeros(2, 6))


@needs_six
def test_bytes_and_rounding_are_those_of_compressed_tensors() -> None:
    helpers = import_module("compressed_tensors.compressors.mxfp6.helpers")
    library = import_module("compressed_tensors.quantization.utils.fp6_utils")
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(2)) * 3
    x[0, :120] = torch.arange(-60, 60) / 8 + 1 / 16  # midpoints
    grid = grid_of(group("mxfp6a16").weights)
    rounded = round_to(x, grid.codes)
    assert torch.equal(rounded, library.cast_to_fp6(x))
    packed = bytes_of_values(rounded)
    assert torch.equal(packed, helpers.pack_fp6_to_uint8(rounded))
    wanted = helpers.unpack_fp6_from_uint8(packed, 64, 256, dtype=torch.float32)
    assert torch.equal(values_of_bytes(packed), wanted)


@needs_six
@pytest.mark.parametrize("name", SIX_BITS)
def test_a_rounded_weight_has_the_bytes_that_compressed_tensors_would_write(name: str) -> None:
    from stages.formats.input_params import InputParams
    from stages.formats.pack import compressor, pack

    scheme = to_compressed_tensors(group(name))
    weight = torch.randn(24, 128, generator=torch.Generator().manual_seed(3)).bfloat16()
    grid = grid_of(group(name).weights)
    found = rtn(weight, grid, minmax.observe(weight, grid))
    state = {"weight": weight, "weight_scale": found.scale}
    theirs = compressor(scheme).compress(state, scheme)
    ours = pack(
        found.codes,
        scale=found.scale,
        zero_point=None,
        global_scale=None,
        inputs=InputParams(),
        scheme=scheme,
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[part]) for part, tensor in ours.items())


@pytest.mark.skipif(PACKS_SIX, reason="what compressed-tensors before 0.20 cannot do")
def test_they_are_refused_by_name_where_nothing_packs_them() -> None:
    with pytest.raises(UserError, match=r"MXFP6.*0\.19") as caught:
        QArgs(num_bits=6, type="float", strategy="group", group_size=32, scale_dtype="uint8")
    assert "compressed-tensors>=0.20.0" in str(caught.value)
