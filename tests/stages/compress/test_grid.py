"""The one rounding rule against torch's and compressed-tensors' own casts; error bounds."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.quant_args import FP4_E2M1_DATA
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.compress.grid import column_scale, expand, grid_of, round_to
from stages.compress.grid_kernels import as_float32
from stages.compress.observers import minmax
from stages.compress.solvers import gptq_kernels as kernels
from stages.compress.solvers.gptq_arrays import Columns, Params
from stages.compress.solvers.rtn import rtn
from tests.stages.compress.solvers.reference import int4, problem

FP8 = QuantizationArgs(num_bits=8, type="float", strategy="channel")
FP4 = QuantizationArgs(num_bits=4, type="float", strategy="group", group_size=32)


def _probes(limit: float) -> torch.Tensor:
    """Values over the whole range, dense near zero, with every tie between small floats."""
    line = torch.linspace(-1.2 * limit, 1.2 * limit, 20_001)
    ties = torch.arange(-4096, 4097) / 2.0**11
    scale = 2.0 ** torch.arange(-8, 9)
    return torch.cat([line, (ties[:, None] * scale).flatten()])


def test_e4m3_codes_are_torch_casts() -> None:
    x = _probes(448.0)
    expected = x.clamp(-448, 448).to(torch.float8_e4m3fn).float()
    assert torch.equal(round_to(x, grid_of(FP8).codes), expected)


def test_e2m1_codes_are_those_of_compressed_tensors() -> None:
    x = _probes(6.0)
    expected = FP4_E2M1_DATA.cast_to_fp4(x.clamp(-6, 6))
    assert torch.equal(round_to(x, grid_of(FP4).codes), expected)


def test_integer_codes_round_half_to_even() -> None:
    x = torch.arange(-40, 40) / 4
    assert torch.equal(round_to(x, grid_of(int4()).codes), x.round().clamp(-8, 7))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scales_are_rounded_as_their_dtype_rounds(dtype: torch.dtype) -> None:
    x = _probes(3.0).abs().clamp(min=2.0**-10)
    assert torch.equal(round_to(x, grid_of(int4(), dtype).scales), x.to(dtype).float())


def test_compiled_rounding_equals_torch_rounding() -> None:
    for args in (FP8, FP4, int4(), int4(bits=8)):
        grid = grid_of(args)
        x = _probes(grid.codes.high)
        w, zero, one = x[None], torch.zeros(1, x.numel()), torch.ones(1, x.numel())
        code, error, carried = (torch.zeros_like(w) for _ in range(3))
        free = torch.empty(0, 0)
        kernels.nearest_plane_block(
            Columns(w.numpy(), carried.numpy(), code.numpy(), error.numpy(), free.numpy()),
            torch.ones(1, 1).numpy(),
            Params(one.numpy(), zero.numpy(), torch.zeros(1, dtype=torch.int64).numpy(), 1),
            as_float32(grid.codes),
        )
        assert torch.equal(code[0], round_to(x, grid.codes))


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
    group_size=st.sampled_from([8, 32, None]),
)
def test_rounding_errs_by_at_most_half_a_scale_inside_the_range(
    seed: int, bits: int, symmetric: bool, group_size: int | None
) -> None:
    weight, _ = problem(rows=5, columns=64, seed=seed, tokens=1)
    grid = grid_of(int4(group_size, symmetric=symmetric, bits=bits))
    qparams = minmax.observe(weight, grid)
    quantized = rtn(weight.float(), grid, qparams)
    scale, zero = (t[:, column_scale(grid, 64)] for t in expand(qparams, grid, 5))
    low, high = (grid.codes.low - zero) * scale, (grid.codes.high - zero) * scale
    w = weight.float()
    bound = scale / 2 + (low - w).clamp(min=0) + (w - high).clamp(min=0)
    assert ((quantized.weight - w).abs() <= bound * (1 + 1e-5)).all()


def test_activation_only_strategies_are_refused() -> None:
    args = QuantizationArgs(num_bits=8, strategy="token", dynamic=True)
    with pytest.raises(ValueError, match="token"):
        grid_of(args)
