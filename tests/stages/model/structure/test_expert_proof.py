"""Experts that are not proven are refused at plan time; scores stay dense by rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.model.families import score
from stages.model.structure import expert_proof
from stages.schemes.engine_support import expert_warnings
from stages.schemes.resolve import resolve
from tests.stages.model.experts.tiny import tiny_experts
from tests.stages.schemes.presets import load


def test_experts_that_are_not_proven_are_one_error_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_experts("granitemoe", tmp_path)

    def unproven(*args: object) -> None:
        raise UserError("the experts of Odd compute something else")

    monkeypatch.setattr(expert_proof, "prove_experts", unproven)
    expert_proof._unproven.cache_clear()
    try:
        with pytest.raises(UserError, match="Odd compute something else"):
            model.blueprint()
    finally:
        expert_proof._unproven.cache_clear()


def test_what_vllm_does_with_the_experts_of_gpt_oss_is_told(tmp_path: Path) -> None:
    gpt_oss = tiny_experts("gpt_oss", tmp_path / "one").blueprint()
    (warning,) = expert_warnings(gpt_oss)
    assert "gate_proj" in warning
    (warning,) = expert_warnings(tiny_experts("aria_text", tmp_path / "three").blueprint())
    assert "experts.fc1.weight" in warning
    for family in ("mixtral", "granitemoe"):
        assert not list(expert_warnings(tiny_experts(family, tmp_path / family).blueprint()))


def test_an_index_that_selects_tokens_keeps_its_weights(tmp_path: Path) -> None:
    blueprint = tiny_experts("deepseek_v32", tmp_path).blueprint()
    chosen = resolve(load("fp8_dynamic"), blueprint).checked()
    assert not any(name.endswith(".weights_proj") for name in chosen)
    assert "model.layers.0.self_attn.indexer.wk" in chosen


@pytest.mark.parametrize(
    ("name", "dense"),
    [
        ("model.layers.3.mlp.gate", True),
        ("model.layers.3.mlp.shared_expert_gate", True),
        ("model.layers.3.mlp.router.gate", True),
        ("model.layers.3.mlp.gate.wg", True),
        ("model.layers.3.mlp.gate.router_mlp.out_proj", True),
        ("model.layers.3.self_attn.indexer.weights_proj", True),
        ("model.layers.3.altup.correction_coefs", True),
        ("model.layers.3.self_attn.indexer.wk", False),
        ("model.layers.3.self_attn.gate_proj", False),
        ("model.layers.3.mlp.gate_proj", False),
        ("model.layers.3.mlp.experts.7.gate_proj", False),
    ],
)
def test_linears_that_give_scores_are_known_by_rule(name: str, dense: bool) -> None:
    assert (score(name) is not None) is dense
