"""Scores side by side: differences with the error of pairs, the mean, the report's lines."""

from __future__ import annotations

import math
from typing import Any

import pytest

from stages.eval.report import QUALITY
from stages.eval.tasks.report import TASKS
from stages.eval.tasks.tasks import compared, paired_error


def task(*each: float, metric: str = "acc", better: bool | None = True, **more: Any) -> Any:
    value = sum(each) / len(each)
    found = {"value": value, "error": 0.1, "higher_is_better": better, "each": list(each)}
    about = {"samples": len(each), "shots": 0, "version": 1, "documents": "x"}
    return {**about, "metrics": {metric: found, **more}}


def test_the_error_of_a_difference_is_that_of_pairs() -> None:
    # differences 0, 0, -1, 0: mean -1/4, variance 1/4, error sqrt(1/4 / 4)
    assert paired_error([1, 0, 1, 1], [1, 0, 0, 1]) == pytest.approx(0.25)
    assert paired_error([1, 0], [1, 0]) == 0
    assert paired_error([1], [0]) is None
    assert paired_error(None, [1, 0]) is None
    assert paired_error([1, 0, 1], [1, 0]) is None


def test_both_models_are_compared_by_task_and_in_the_mean() -> None:
    before = {"one": task(1, 1, 0, 1), "two": task(1, 0), "gone": task(1)}
    after = {"one": task(1, 0, 0, 1), "two": task(1, 1)}
    found = compared(before, after)
    assert set(found["scores"]) == {"one", "two"}
    one = found["scores"]["one"]["acc"]
    assert (one["original"], one["compressed"], one["difference"]) == (0.75, 0.5, -0.25)
    assert one["error"] == pytest.approx(0.25)
    mean = found["mean"]
    assert mean["original"] == 0.625 and mean["compressed"] == 0.75 and mean["tasks"] == 2
    assert mean["error"] == pytest.approx(math.sqrt(0.25**2 + 0.5**2) / 2)


def test_the_mean_is_of_shares_and_the_main_metric_is_the_normalised_one() -> None:
    plain = task(1, 0)["metrics"]["acc"]
    both = {"one": task(0.5, 1, metric="acc_norm", acc=plain), "words": task(9, 11, better=False)}
    found = compared(both, both)
    assert found["scores"]["one"]["main"] == "acc_norm"
    assert found["mean"]["tasks"] == 1 and found["mean"]["original"] == 0.75
    shots = {"math": task(1, 0, metric="exact_match_strict-match")}
    assert compared(shots, shots)["scores"]["math"]["main"] == "exact_match_strict-match"
    words = {"words": task(9, 11, better=False)}
    assert compared(words, words)["mean"] == {}


def test_the_report_tells_each_task_its_uncertainty_and_the_mean() -> None:
    before, after = {"one": task(1, 1, 0, 1), "two": task(1, 0)}, {"one": task(1, 0, 0, 1)}
    result = {"eval": {}, "tasks": compared(before, {**after, "two": task(1, 0)})}
    assert TASKS.rows is not None and TASKS.limits is not None and QUALITY.limits is not None
    one, _, mean = TASKS.rows(result)
    assert (one.what, one.before, one.after) == ("one (acc)", "75.0 %", "50.0 %")
    assert one.change == "-25.00 ± 25.00 points"
    assert mean.what == "mean of the tasks" and mean.before == "62.5 %"
    assert "one 4, two 2" in TASKS.limits(result)[0]
    assert QUALITY.limits(result) == []  # quality was evaluated
    assert TASKS.verdict is not None and QUALITY.verdict is not None
    assert TASKS.verdict(result, {}) == ["the mean of the tasks -12.50 ± 12.50 points"]
    assert QUALITY.verdict(result, {}) == []
    (metric,) = TASKS.metrics
    assert metric.of(result) == 0.5 and metric.better(0.6, 0.5)
    nothing: dict[str, Any] = {"eval": {}, "tasks": {}}
    assert TASKS.rows(nothing) == [] and TASKS.limits(nothing) == [] and metric.of(nothing) is None
