"""Distributions for the report: every counted entry is in its bin."""

from __future__ import annotations

import torch

from stages.compress.layer.writer import BINS, counted, distributions, worst


def test_counts_are_of_equal_bins_about_zero() -> None:
    values = torch.tensor([[-1.0, -0.99, 0.0, 0.01, 1.0]])
    found = counted(values)
    assert found["edge"] == 1.0 and len(found["counts"]) == BINS
    assert found["counts"][0] == 2 and found["counts"][BINS // 2] == 2
    assert found["counts"][-1] == 1 and sum(found["counts"]) == 5


def test_no_error_has_no_counts() -> None:
    weight = torch.randn(8, 16)
    found = distributions(weight, weight)
    assert found["error"] == {"edge": 0.0, "counts": []}
    assert sum(found["weight"]["counts"]) == weight.numel()


def test_the_errors_are_those_of_the_quantized_weight() -> None:
    weight = torch.randn(300, 16)
    found = distributions(weight.bfloat16(), weight.bfloat16() + 0.25)
    assert found["error"]["edge"] < 0.27 and found["error"]["counts"][0] > 0
    assert found["error"]["counts"][-1] == 0


def test_the_worst_modules_are_kept_and_those_without_an_error_are_not() -> None:
    rows = [{"name": n, "relative_error": e} for n, e in (("a", 0.1), ("b", None), ("c", 0.3))]
    rows += [{"name": "d", "relative_error": 0.2}]
    found = {name: {"weight": {}, "error": {}} for name in "abcd"}
    assert [row["name"] for row in worst(rows, found)] == ["c", "d"]
