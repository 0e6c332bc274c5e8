"""Smoothing pairs are found and proven in models of every kind, or refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.model.blueprint import Pair
from stages.model.blueprint_from_class import blueprint_of
from stages.model.families import smoothing_pairs
from stages.model.pairs.bench import Bench, moved, powers
from stages.model.pairs.finder import find
from stages.model.pairs.namer import head_dim_of
from stages.model.pairs.proven import ProvenPairs
from stages.model.shrunken import randomize, shrunken
from stages.model.skeleton import Skeleton, skeleton
from tests.families.case import Case
from tests.families.dense import DENSE
from tests.families.experts import EXPERTS
from tests.families.hybrid import HYBRID
from tests.families.tiny import config_of
from tests.stages.model.pairs.expected import EXPECTED, QUICK
from tests.stages.model.pairs.tables import FAMILIES
from tests.stages.model.tiny import proven

CASES: dict[str, Case] = {case.name: case for case in (*DENSE, *EXPERTS, *HYBRID)}


def config(name: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(config_of(CASES[name]).to_json_string(use_diff=False))
    return parsed


def pairs_of(name: str) -> ProvenPairs:
    return proven(json.dumps(config(name)))


def quick_or_slow(names: Any, quick: frozenset[str]) -> list[Any]:
    return [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", quick_or_slow(EXPECTED, QUICK))
def test_norms_and_what_they_feed(name: str) -> None:
    found = pairs_of(name)
    shown = {
        f"{'1+' if pattern.norm_offset else ''}{pattern.source} -> {' '.join(pattern.targets)}"
        for kind in found.kinds
        for pattern in kind.patterns
        if pattern.source_kind == "norm"
    }
    assert shown == set(EXPECTED[name])
    assert ProvenPairs.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_model_in_bfloat16_has_the_pairs_of_one_in_float32() -> None:
    given = config("gemma2")
    whole, half = ({**given, "dtype": dtype} for dtype in ("float32", "bfloat16"))
    found = proven(json.dumps(half))
    assert {p.norm_offset for kind in found.kinds for p in kind.patterns} == {0.0, 1.0}
    assert found == proven(json.dumps(whole))


@pytest.mark.parametrize("name", quick_or_slow(FAMILIES, frozenset({"qwen2_moe"})))
def test_at_least_the_pairs_of_the_table_are_found(name: str) -> None:
    parsed = config(name)
    bones = skeleton(blueprint_of(parsed))
    found = pairs_of(name).attached(bones.blueprint)
    for layer, module in zip(found.layers, bones.layers, strict=True):
        modules = [f"{layer.name}.{local}" for local, _ in module.named_modules() if local]
        written = smoothing_pairs(
            FAMILIES[name], layer.name, modules, layer.linears, head_dim_of(module)
        )
        assert [uses(p) for p in written] == [uses(p) for p in layer.pairs]


def uses(pair: Pair) -> tuple[object, ...]:
    width = pair.head_dim if pair.repeats > 1 else 0
    return pair.source, pair.targets, pair.source_kind, pair.norm_offset, pair.repeats, width


def small(name: str) -> tuple[Skeleton, Tensor]:
    made = shrunken(config(name))
    bones = skeleton(blueprint_of(made.config))
    randomize(bones.model, 0)
    return bones, made.input_ids


class AlsoReads(nn.Module):
    """An MLP that hands its own input on as well: something that no factor is moved into."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj
        self.act_fn = mlp.act_fn

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return made + 0.125 * x


def test_a_norm_that_something_else_reads_has_no_pair() -> None:
    bones, ids = small("llama")
    layer: Any = bones.layers[1]
    layer.mlp = AlsoReads(layer.mlp)
    bench = Bench(bones, ids)
    refused, plain = find(bench, 1), find(bench, 2)
    assert "input_layernorm" in [p.source for p in refused.patterns]
    assert "post_attention_layernorm" not in [p.source for p in refused.patterns]
    (reason,) = refused.refused
    assert reason.startswith("post_attention_layernorm -> mlp.gate_proj, mlp.up_proj: more than")
    assert "post_attention_layernorm" in [p.source for p in plain.patterns]
    assert not plain.refused


class Limited(AlsoReads):
    """An MLP whose products are limited: factors are lost where they meet the limit."""

    def forward(self, x: Tensor) -> Tensor:
        inner = self.act_fn(self.gate_proj(x)) * self.up_proj(x)
        made: Tensor = self.down_proj(inner.clamp(-50, 50))
        return made


def test_a_limit_that_ordinary_activations_never_meet_is_met() -> None:
    bones, ids = small("llama")
    layer: Any = bones.layers[0]
    layer.mlp = Limited(layer.mlp)
    bench = Bench(bones, ids)
    assert max(float(x.abs().max()) for x in bench.plain.inputs[f"{NAME}.mlp.down_proj"]) < 50
    assert "mlp.up_proj" not in [p.source for p in find(bench, 0).patterns]


NAME = "model.layers.0"
RIGHT = Pair(source=f"{NAME}.mlp.up_proj", targets=(f"{NAME}.mlp.down_proj",), source_kind="linear")
WRONG = Pair(
    source=f"{NAME}.mlp.gate_proj", targets=(f"{NAME}.mlp.down_proj",), source_kind="linear"
)


def test_candidates_of_plugins_are_proven_alike() -> None:
    bones, ids = small("llama")
    found = find(Bench(bones, ids), 0, [RIGHT, WRONG])
    sources = [pattern.source for pattern in found.patterns]
    assert sources.count("mlp.up_proj") == 1
    assert "mlp.gate_proj" not in sources
    assert [r for r in found.refused if r.startswith("mlp.gate_proj -> mlp.down_proj: ")]


def test_one_side_alone_changes_the_logits_and_both_do_not() -> None:
    bones, ids = small("qwen3_moe")
    bench = Bench(bones, ids)
    for pair in found_in(bones):
        factors = powers(len(bench.tensors[f"{pair.source}.weight"]), seed=7)
        assert bench.run(moved(bench.tensors, pair, factors)).same(bench.plain)
        for side in ({"source": False}, {"targets": False}):
            half = bench.run(moved(bench.tensors, pair, factors, **side))
            assert not torch.equal(half.handed[-1], bench.plain.handed[-1])


def found_in(bones: Skeleton) -> Iterator[Pair]:
    found = pairs_of("qwen3_moe").attached(blueprint_of(bones.blueprint.config))
    for layer in found.layers[1:2]:
        yield from layer.pairs


def test_pairs_of_a_large_model_are_placed_by_the_kinds_of_its_layers() -> None:
    parsed = {
        **{"model_type": "qwen3_moe", "num_hidden_layers": 12, "mlp_only_layers": [0, 5]},
        **{"hidden_size": 256, "num_attention_heads": 16, "num_key_value_heads": 2},
        **{"head_dim": 32, "num_experts": 24, "num_experts_per_tok": 4},
        **{"moe_intermediate_size": 64, "intermediate_size": 512, "vocab_size": 512},
        **{"bos_token_id": 1, "eos_token_id": 2, "architectures": ["Qwen3MoeForCausalLM"]},
    }
    blueprint = proven(json.dumps(parsed)).attached(blueprint_of(parsed))
    for layer in blueprint.layers:
        dense = layer.index in (0, 5)
        by_source = {pair.source.removeprefix(f"{layer.name}."): pair for pair in layer.pairs}
        value = by_source["self_attn.v_proj"]
        assert (value.repeats, value.head_dim) == (8, 32)
        assert len(by_source["post_attention_layernorm"].targets) == (2 if dense else 49)
        assert len(layer.pairs) == (4 if dense else 27)
