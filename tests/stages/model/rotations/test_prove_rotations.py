"""Where models of every kind may be rotated: proven in float64, or refused with the reason."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest

from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_class import blueprint_of
from stages.model.rotations.options import R1, R2, RotationOptions
from stages.model.rotations.plan import problems, rotation_plan
from stages.model.rotations.prove_rotations import prove_rotations
from stages.model.rotations.proven import BY_HEAD, LAST, FusedValues, ProvenRotations
from stages.model.rotations.trial import CLOSE
from stages.model.shrunken import shrunken
from tests.stages.model.pairs.test_finder import config, pairs_of

BOTH = {"llama": 0.0, "qwen3": 0.0, "gemma": 1.0, "qwen3_moe": 0.0, "mixtral": 0.0}
"""Families of which both rotations hold -> what is added to the weight of their norms."""
REFUSED = {
    "gemma2": {R1: "the weight of post_attention_layernorm, post_feedforward_layernorm"},
    "gemma3_text": {R1: "the weight of post_attention_layernorm, post_feedforward_layernorm"},
    "olmo2": {R1: "post_attention_layernorm, post_feedforward_layernorm multiplies channels"},
    "opt": {R1: "project_in.weight, which no text of the proof went through"},
    "gpt_neox": {R2: "how wide a head of its attention is"},
}
FUSED = {
    "phi3": ("self_attn.qkv_proj", LAST),
    "gpt2": ("attn.c_attn", LAST),
    "falcon": ("self_attention.query_key_value", BY_HEAD),
}
"""Families with one Linear for queries, keys and values -> which, and where the values are."""
QUICK = ("llama",)


@cache
def proven(name: str) -> ProvenRotations:
    parsed = config(name)
    return prove_rotations(parsed, shrunken(parsed), pairs_of(name))


def cases(names: object) -> list[object]:
    return [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in names]  # type: ignore[attr-defined]


def whole(name: str) -> Blueprint:
    return blueprint_of(config(name))


def options(*rotations: str, kind: str = "random-matrix") -> RotationOptions:
    return RotationOptions(rotations=rotations, type=kind, block=None, seed=1)


@pytest.mark.parametrize("name", cases(BOTH))
def test_both_rotations_hold(name: str) -> None:
    found = proven(name)
    assert found.refused == {} and found.difference.keys() == {R1, R2}
    assert max(found.difference.values()) < 1e-12 < CLOSE
    assert found.offset == BOTH[name] and not found.keeps_mean
    assert ProvenRotations.from_json(json.loads(json.dumps(found.to_json()))) == found
    blueprint = whole(name)
    plan = rotation_plan(blueprint, found, options(R1, R2))
    assert {layer for kind in found.kinds for layer in kind.layers} == set(blueprint.members)
    for layer in blueprint.layers:
        for linear in layer.linears:  # every Linear reads or writes the residual stream
            assert any(
                step.rotate == R1 for step in plan.steps[layer.tensors[f"{linear.name}.weight"]]
            )
    assert plan.aliases == (
        {"lm_head.weight": "model.embed_tokens.weight"} if blueprint.tied else {}
    )


@pytest.mark.parametrize("name", cases(REFUSED))
def test_a_rotation_that_does_not_hold_is_refused_by_name(name: str) -> None:
    found = proven(name)
    assert found.refused.keys() == REFUSED[name].keys()
    for which, reason in REFUSED[name].items():
        assert reason in found.refused[which]
        (problem, *_) = problems(whole(name), found, options(R1, R2))
        assert f"cannot be rotated by {which}" in problem.what
        other = R1 if which == R2 else R2
        assert f"rotations=[{other}]" in problem.remedy
        assert not list(problems(whole(name), found, options(other)))
    assert found.keeps_mean == (name == "gpt_neox")


@pytest.mark.parametrize("name", cases(FUSED))
def test_values_among_queries_and_keys_are_found(name: str) -> None:
    found = proven(name)
    assert found.refused == {} and max(found.difference.values()) < 1e-12
    source, layout = FUSED[name]
    for kind in found.kinds:
        assert not kind.values
        assert [(each.source, each.layout) for each in kind.fused] == [(source, layout)]
    assert ProvenRotations.from_json(json.loads(json.dumps(found.to_json()))) == found
    blueprint = whole(name)
    plan = rotation_plan(blueprint, found, options(R2))
    layer = blueprint.layers[-1]
    (step,) = plan.steps[layer.tensors[f"{layer.name}.{source}.weight"]]
    rows = layer.shapes[f"{layer.name}.{source}.weight"][0]
    assert step.rotate == f"R2 of {layer.name}" and step.dim == 0
    assert step.period == (
        rows
        if layout == LAST
        else rows * found.kinds[0].head_dim * 2 // (rows - blueprint.hidden_size)
    )


def test_values_take_up_what_queries_and_keys_leave() -> None:
    last, by_head = (
        FusedValues(source="qkv", target="o", layout=layout) for layout in (LAST, BY_HEAD)
    )
    assert last.places(96, 32, 8) == (96, 64) and by_head.places(96, 32, 8) == (24, 16)
    assert last.places(64, 32, 8) == (64, 48) and by_head.places(64, 32, 8) == (32, 24)
    for rows, channels, width in ((95, 32, 8), (32, 32, 8), (64, 32, 0), (64, 32, 12), (72, 32, 4)):
        assert last.places(rows, channels, width) is None


def test_what_the_proof_did_not_reach_is_refused() -> None:
    found, blueprint = proven("llama"), whole("llama")
    hidden = blueprint.hidden_size
    tower = replace(
        blueprint,
        outside={**blueprint.outside, "projector.weight": "projector.weight"},
        outside_shapes={**blueprint.outside_shapes, "projector.weight": (hidden, 8)},
    )
    extra = replace(blueprint, carried=("model.layers.9.eh_proj.weight",))
    other = replace(found, kinds=tuple(replace(k, layers=k.layers[1:]) for k in found.kinds))
    lost = replace(found, kinds=tuple(replace(k, writers=("mlp.gone",)) for k in found.kinds))
    twice = replace(
        blueprint,
        layers=(
            blueprint.layers[0],
            replace(
                blueprint.layers[1],
                tensors={
                    name: stored.replace("layers.1.", "layers.0.")
                    for name, stored in blueprint.layers[1].tensors.items()
                },
            ),
            *blueprint.layers[2:],
        ),
    )
    told = [
        next(iter(problems(*case, options(R1)))).what
        for case in (
            (tower, found),
            (extra, found),
            (blueprint, other),
            (blueprint, lost),
            (twice, found),
        )
    ]
    assert "R1 would not reach projector.weight" in told[0]
    assert "eh_proj.weight, which belong to no module" in told[1]
    assert "no layer of the small model" in told[2]
    assert "has no mlp.gone" in told[3]
    assert "are one tensor in the checkpoint" in told[4]
    assert not list(problems(tower, found, options(R2)))


def test_sizes_without_a_hadamard_matrix_are_told_with_what_would_do() -> None:
    asked = replace(options(R1, kind="hadamard"), block=None)
    for size, which, remedy in ((172, R1, "block_size=4"), (36 * 3, R1, None), (92, R2, "R1")):
        problem = asked.problem(which, size)
        assert (problem is None) == (remedy is None)
        assert problem is None or remedy in problem.remedy
    assert asked.problem(R1, 576) is None and options(R1).problem(R1, 172) is None
    blocks = replace(asked, block=64)
    assert blocks.problem(R1, 576) is None
    problem = blocks.problem(R1, 100)
    assert problem is not None and "block_size is 64, and R1 turns 100 channels" in problem.what
