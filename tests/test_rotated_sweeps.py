"""Rotations in a sweep on the original model's activations: its calibration serves them too."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from tests.jobs import built
from tests.test_rotated_jobs import W8, differs
from tests.test_smoothing_jobs import job

ORIGINAL = ("calibrate.propagate=original", *W8)
SPIN = "modifier=[spinquant,gptq]"
ENDS = ("scheme.ignore=[]", "scheme.targets=[Linear,lm_head]")
GATHERED = (
    "~graph.nodes.compress.inputs.unrotated",
    "~graph.nodes.compress_outside.inputs.unrotated",
)
"""The Gram matrices of the rotated model, by its own forwards."""


def gathering(result: dict[str, Any]) -> set[str]:
    """Nodes that a run built by running the model."""
    return {n for n in built(result) if n.startswith(("calibrate", "unrotated", "reference"))}


def ratio(one: dict[str, Any], other: dict[str, Any]) -> float:
    """How large the errors of the layers of one run are beside those of another, on average."""
    errors = [{x["name"]: x["relative_error"] for x in run["layers"]} for run in (one, other)]
    assert errors[0].keys() == errors[1].keys()
    return mean(errors[0][name] / error for name, error in errors[1].items())


def test_a_rotation_takes_its_gram_matrices_from_the_calibration_of_others(tmp_path: Path) -> None:
    made = job("qwen3", tmp_path)
    plain = made.run("plain", "modifier=[gptq]", *ORIGINAL)
    assert len(gathering(plain)) == 4
    rotated = made.run("rotated", SPIN, *ORIGINAL)
    assert gathering(rotated) == set()
    assert differs(made, "rotated") < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3", "gemma", "cohere2", "mixtral"])
def test_derived_gram_matrices_are_as_good_as_gathered_ones(name: str, tmp_path: Path) -> None:
    made = job(name, tmp_path)
    alone = made.run("alone", SPIN, *ORIGINAL, *ENDS)
    assert gathering(alone) == {*(f"unrotated[{i}]" for i in range(4)), "unrotated_outside"}
    assert gathering(made.run("plain", "modifier=[gptq]", *ORIGINAL, *ENDS)) == set()
    gathered = made.run("gathered", SPIN, *ORIGINAL, *ENDS, *GATHERED)
    assert gathering(gathered) == {*(f"calibrate[{i}]" for i in range(4)), "calibrate_outside"}
    assert abs(ratio(alone, gathered) - 1.0) < 0.02
    if name != "mixtral":  # of which 8 bits send tokens to other experts, as chance has it
        assert differs(made, "alone") < 1.1 * differs(made, "gathered")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("modifier=[spinquant,smoothquant,gptq]", *ORIGINAL),
        ("modifier=[spinquant,gptq]", *ORIGINAL, "kv_cache=fp8"),
        ("modifier=[spinquant,autoround]", *ORIGINAL, "modifier.autoround.iterations=2"),
        ("modifier=[spinquant,gptq]", "calibrate.propagate=original", "scheme=fp8"),
        ("modifier=[spinquant,gptq]", *W8),
    ],
    ids=["absmean", "cache", "learned", "range", "compressed"],
)
def test_a_model_that_is_run_rotated_anyway_is_measured_once(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    result = job("qwen3", tmp_path).run("rotated", *words)
    assert not any(name.startswith("unrotated") for name in built(result))
    assert len(gathering(result)) == 4
