"""Power-of-two scales: each rule at its edges, and the search as the best of the neighbours."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import UserError
from stages.compress.compressed_tensors_math import scale_and_zero_point
from stages.compress.grid import Grid, grid_of, round_to
from stages.compress.observers import minmax
from stages.compress.observers.mse import mse
from stages.compress.observers.power_scale import power_scale
from stages.compute import loops
from stages.schemes.quant_args import QArgs

EDGES = {
    4: [1.0, 3.0, 3.4, 3.5, 4.0, 6.0, 6.5, 7.0, 7.9, 8.0],
    8: [1.0, 224.0, 225.0, 256.0, 448.0, 449.0, 479.0, 480.0, 496.0, 511.0],
}
SCALES = {
    (4, "floor"): [0.25, 0.5, 0.5, 0.5, 1, 1, 1, 1, 1, 2],
    (4, "even"): [0.25, 0.5, 0.5, 1, 1, 1, 1, 2, 2, 2],
    (4, "rceil"): [0.25, 0.5, 1, 1, 1, 1, 2, 2, 2, 2],
    (8, "floor"): [2**-8, 0.5, 0.5, 1, 1, 1, 1, 1, 1, 1],
    (8, "even"): [2**-8, 0.5, 0.5, 1, 1, 1, 1, 1, 2, 2],
    (8, "rceil"): [2**-8, 0.5, 1, 1, 1, 2, 2, 2, 2, 2],
}


def grid(bits: int, rule: str | None, dtype: torch.dtype = torch.bfloat16) -> Grid:
    args = QArgs(
        num_bits=bits,
        type="float",
        strategy="group",
        group_size=32,
        scale_dtype="uint8",
        scale_rule=rule,
    )
    return grid_of(args, dtype)


@pytest.mark.parametrize(("bits", "rule"), SCALES)
def test_a_rule_gives_its_scale_at_every_edge(bits: int, rule: str) -> None:
    found = power_scale(torch.tensor(EDGES[bits]), grid(bits, rule, torch.float32))
    assert found.tolist() == SCALES[bits, rule]


def test_even_is_the_rule_of_compressed_tensors_for_fp4() -> None:
    size = torch.rand(4096).exp2() * torch.randint(-20, 20, (4096,)).float().exp2()
    size = size.bfloat16()
    expected, _ = scale_and_zero_point(-size, size, grid(4, None))
    assert torch.equal(power_scale(size, grid(4, "even")), expected.to(torch.bfloat16))


def test_zeros_what_is_not_finite_and_tiny_dtypes_have_a_scale_that_is_told() -> None:
    found = power_scale(torch.tensor([0.0, float("nan"), float("inf")]), grid(8, "rceil"))
    assert found[0] > 0 and found[1].isnan() and found[2].isinf()
    tiny = power_scale(
        torch.tensor([1e-30, 6e4], dtype=torch.float32), grid(8, "floor", torch.float16)
    )
    assert tiny.tolist() == [2**-14, 2**7]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("which", ["compiled", "torch"])
def test_search_is_the_best_of_all_powers_near_the_largest(
    bits: int, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(bits)
    weight = torch.randn(64, 256) * torch.rand(64, 1).exp2()
    weight[0, :32] = 0
    monkeypatch.setattr(loops, "loops_for", lambda _: which)
    chosen = minmax.observe(weight, grid(bits, "search", torch.float32)).scale
    blocks = weight.unflatten(1, (-1, 32))

    def error(scale: torch.Tensor) -> torch.Tensor:
        codes = round_to(blocks / scale[..., None], grid(bits, None).codes)
        return (codes * scale[..., None] - blocks).square().sum(-1)

    errors = {
        rule: error(minmax.observe(weight, grid(bits, rule, torch.float32)).scale)
        for rule in ("floor", "even", "rceil", "compressed_tensors")
    }
    best = error(chosen)
    assert all(bool((best <= found * (1 + 1e-5)).all()) for found in errors.values())
    if bits == 4:  # the steps of E4M3 are even enough that fitting is all there is to gain
        assert best.sum() < min(found.sum() for found in errors.values())
    wide = torch.stack([error(chosen * 2.0**step) for step in (-3, -2, -1, 1, 2, 3)])
    assert bool((best <= wide * (1 + 1e-5)).all())
    assert torch.equal(mse(weight, grid(bits, "search", torch.float32), norm=2.0).scale, chosen)


def test_the_rule_is_for_weights_of_mx_formats_only() -> None:
    with pytest.raises(UserError, match="scale_rule is 'ceil'") as told:
        QArgs(scale_rule="ceil")
    assert "floor, even, rceil, compressed_tensors, search" in str(told.value)
    with pytest.raises(UserError, match="no stored powers of two"):
        QArgs(num_bits=8, scale_rule="floor")
    with pytest.raises(ValueError, match="largest magnitude"):
        power_scale(torch.ones(1), grid(4, "search"))
