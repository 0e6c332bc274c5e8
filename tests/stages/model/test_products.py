"""Linears of 16-bit models that multiply in float32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stages.model.products import FEW_ROWS, widen


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
def test_the_result_is_the_exact_product_rounded_once(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(96, 40, bias=bias, dtype=dtype)
    widen(linear)
    x = torch.randn(2, 16, 96, dtype=dtype)
    exact = x.double() @ linear.weight.double().T + (linear.bias.double() if bias else 0)
    half_a_step = exact.abs() * torch.finfo(dtype).eps / 2
    result = linear(x)
    assert result.dtype == dtype
    assert bool(((result.double() - exact).abs() <= half_a_step + 1e-5).all())


def test_a_few_rows_and_float32_are_left_as_they_are() -> None:
    linear = nn.Linear(96, 40, dtype=torch.bfloat16)
    x = torch.randn(FEW_ROWS - 1, 96, dtype=torch.bfloat16)
    plain = linear(x)
    widen(linear)
    assert torch.equal(linear(x), plain)
    single = nn.Linear(8, 8)
    widen(single)
    assert "forward" not in single.__dict__


def test_hooks_still_see_the_inputs() -> None:
    linear = nn.Linear(8, 8, dtype=torch.bfloat16)
    widen(linear)
    seen = []
    linear.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    linear(torch.randn(9, 8, dtype=torch.bfloat16))
    assert seen == [torch.bfloat16]
