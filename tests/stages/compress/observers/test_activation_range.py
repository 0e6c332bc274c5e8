"""Static ranges of inputs: what each observer makes of the batches that calibration saw."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams
from torch import Tensor

from stages.calibrate.statistics.histogram import Histogram
from stages.calibrate.statistics.range import Range
from stages.compress.grid import grid_of
from stages.compress.observers.activation_range import averaged, latest, searched, widest

INT8 = QuantizationArgs(num_bits=8, type="int", symmetric=False, strategy="tensor")
FP8 = QuantizationArgs(num_bits=8, type="float", symmetric=True, strategy="tensor")


@pytest.fixture
def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(40, 16, generator=generator) * (1 + k % 3) + 0.5 for k in range(7)]


def ranges(batches: list[Tensor]) -> Tensor:
    state = Range.init(16, "cpu")
    for batch in batches:
        state = Range.update(state, batch)
    return Range.finish(state)


def test_the_widest_range_clips_nothing(batches: list[Tensor]) -> None:
    low, high = widest(ranges(batches))
    assert (low, high) == torch.cat(batches).aminmax()


def test_the_latest_range_forgets_all_but_the_last_batch(batches: list[Tensor]) -> None:
    assert latest(ranges(batches)) == tuple(batches[-1].aminmax())


@pytest.mark.parametrize("constant", [0.01, 0.3, 1.0])
def test_the_moving_average_is_that_of_its_definition(
    batches: list[Tensor], constant: float
) -> None:
    low, high = (float(value) for value in batches[0].double().aminmax())
    for batch in batches[1:]:
        least, most = (float(value) for value in batch.double().aminmax())
        low, high = low + constant * (least - low), high + constant * (most - high)
    found = averaged(ranges(batches), constant)
    assert found[0].item() == pytest.approx(low, rel=1e-6)
    assert found[1].item() == pytest.approx(high, rel=1e-6)


def test_a_moving_average_depends_on_the_order_of_batches(batches: list[Tensor]) -> None:
    assert averaged(ranges(batches)) != averaged(ranges(batches[::-1]))
    assert widest(ranges(batches)) == widest(ranges(batches[::-1]))


@pytest.mark.parametrize("args", [INT8, FP8], ids=["int8", "fp8"])
@pytest.mark.parametrize("norm", [2.0, 2.4])
def test_the_searched_range_errs_least_of_all_that_are_tried(
    batches: list[Tensor], args: QuantizationArgs, norm: float
) -> None:
    x = torch.cat(batches).bfloat16().float()
    x[0, 0] = 30.0  # an outlier, so that shrinking pays
    state = Histogram.update(Histogram.init(16, "cpu"), x)
    found = searched(Histogram.finish(state), grid_of(args, torch.float32), norm=norm)
    low, high = x.aminmax()

    def error(least: Tensor, most: Tensor) -> float:
        scale, zero = calculate_qparams(least, most, args)
        apart = fake_quantize(x, scale, zero, args).double() - x.double()
        return float(apart.abs().pow(norm).sum())

    tried = [error(low * (1 - k / 100), high * (1 - k / 100)) for k in range(20)]
    assert error(*found) == pytest.approx(min(tried), rel=1e-6)
    assert min(tried) < tried[0] or args is FP8
