"""OWL's shares of zeros: the mean that is asked for, fewer where there are more outliers."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pipeline.errors import UserError
from stages.compress.config import CompressConfig
from stages.compress.idle_modifiers import profile_problem
from stages.compress.modifiers import Gptq, Magnitude, SparseGpt, Wanda
from stages.compress.pruning.owl import layer_sparsities
from stages.compress.stage import Compress
from stages.schemes.scheme import SchemeConfig


def test_shares_have_their_mean_and_span_and_fall_with_outliers() -> None:
    generator = random.Random(0)
    outliers = {f"layer.{k}": generator.uniform(0, 0.03) for k in range(12)}
    found = layer_sparsities(outliers, 0.7, 0.08)
    assert sum(found.values()) / 12 == pytest.approx(0.7)
    assert max(found.values()) - min(found.values()) == pytest.approx(2 * 0.08)
    assert sorted(found, key=found.__getitem__) == sorted(outliers, key=outliers.__getitem__)[::-1]
    # in the same proportion: two layers differ by as much as their outliers do
    a, b, c = (f"layer.{k}" for k in range(3))
    slope = (found[a] - found[b]) / (outliers[a] - outliers[b])
    assert (found[a] - found[c]) / (outliers[a] - outliers[c]) == pytest.approx(slope)


def test_without_a_difference_all_layers_are_alike() -> None:
    assert layer_sparsities({"a": 0.01, "b": 0.01}, 0.5, 0.08) == {"a": 0.5, "b": 0.5}


def test_a_layer_that_would_keep_nothing_is_named() -> None:
    with pytest.raises(ValueError, match=r"b would have 1\.\d+ of its weights zero"):
        layer_sparsities({"a": 0.02, "b": 0.0}, 0.9, 0.2)


def test_a_layer_s_own_pruner_has_one_share() -> None:
    asked = Wanda(sparsity=0.6, sparsity_profile="owl")
    assert (asked.owl_m, asked.owl_lmbda) == (5.0, 0.08)
    assert asked == Wanda(sparsity=0.6, sparsity_profile="owl", owl_m=5.0, owl_lmbda=0.08)
    assert asked.for_layer("a", {"a": 0.02, "b": 0.0}) == Wanda(sparsity=0.6 - 0.08)
    assert SparseGpt(sparsity=0.5).for_layer("a", {"a": 0.02, "b": 0.0}).sparsity == 0.5


def test_keys_without_a_profile_are_those_before_there_were_any() -> None:
    plain: Any = Magnitude(sparsity=0.5).semantics()
    owl: Any = Magnitude(sparsity=0.5, sparsity_profile="owl").semantics()
    assert set(plain[1]) == {"sparsity", "mask_structure"} == set(Magnitude().said())
    assert owl[1]["owl_lmbda"] == 0.08


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_structure": "2:4", "sparsity_profile": "owl"}, "same share of zeros in every"),
        ({"owl_m": 5.0}, "owl_m is 5.0 without sparsity_profile"),
        ({"sparsity_profile": "all"}, "sparsity_profile is 'all'"),
        ({"sparsity_profile": "owl", "owl_lmbda": 0.5}, "owl_lmbda is 0.5"),
        ({"sparsity_profile": "owl", "owl_m": -1.0}, "owl_m is -1.0"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        SparseGpt(**options)


def test_outliers_are_asked_for_by_owl_alone_and_missed_where_nothing_counts_them() -> None:
    def config(pruner: Any) -> CompressConfig:
        return CompressConfig(scheme=SchemeConfig(), modifiers=(pruner, Gptq()))

    owl, plain = config(Wanda(sparsity_profile="owl")), config(Wanda())
    assert Compress(owl).demands()["outliers"] == ("out",)
    assert Compress(plain).demands()["outliers"] == ()
    assert profile_problem(plain, {}) is None and profile_problem(owl, {"outliers": None}) is None
    problem = profile_problem(owl, {})
    assert problem is not None and "nothing in this graph counts" in problem.what
