"""Estimates for a GPU against what was measured on an H200."""

from __future__ import annotations

import pytest

from stages.compute.gpu_estimates import gram_seconds, smaller_batch, solve_seconds
from tests.pipeline.machine.fake_driver import fake_gpus

GB = 10**9
SMALL = ("NVIDIA T4", (7, 5), 16 * GB)


@pytest.mark.parametrize(
    ("rows", "columns", "milliseconds"),
    [(4096, 4096, 19.5), (6144, 4096, 24.1), (28672, 4096, 85.7), (4096, 14336, 145.8)],
)
def test_solving_is_within_a_fifth_of_what_was_measured(
    rows: int, columns: int, milliseconds: float
) -> None:
    assert 1e3 * solve_seconds(rows, columns) == pytest.approx(milliseconds, rel=0.2)


@pytest.mark.parametrize(
    ("rows", "columns", "milliseconds"), [(32768, 4096, 0.9), (8192, 14336, 2.9)]
)
def test_statistics_are_within_a_tenth(rows: int, columns: int, milliseconds: float) -> None:
    assert 1e3 * gram_seconds(rows, columns) == pytest.approx(milliseconds, rel=0.1)


def test_the_largest_batch_that_fits_is_named() -> None:
    with fake_gpus(SMALL):
        assert smaller_batch("cuda", "calibrate.batch_size", 64, 5 * GB, GB) == (
            "say calibrate.batch_size=10"
        )
        assert smaller_batch("cuda", "calibrate.batch_size", 10, 5 * GB, GB) == ""
        assert smaller_batch("cuda", "calibrate.batch_size", 4, 15 * GB, GB) == ""


def test_nothing_is_said_of_a_gpu_that_is_not_known() -> None:
    with fake_gpus():
        assert smaller_batch("cuda", "calibrate.batch_size", 64, 50 * GB, GB) == ""
