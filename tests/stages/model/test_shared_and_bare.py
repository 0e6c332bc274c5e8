"""Tensors that several layers share, weights that are used without a call, tensors in pieces."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from pipeline.errors import UserError
from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_class import blueprint_of
from stages.model.traits.linear_use import linear_use
from tests.families.case import Case
from tests.families.experts import EXPERTS
from tests.families.hybrid import HYBRID
from tests.families.multimodal import MULTIMODAL
from tests.families.tiny import config_of

CASES: dict[str, Case] = {case.name: case for case in (*EXPERTS, *HYBRID, *MULTIMODAL)}


def drawn(name: str) -> Blueprint:
    config = config_of(CASES[name])
    config.dtype = torch.bfloat16
    return blueprint_of(json.loads(config.to_json_string()))


class Mixer(nn.Module):
    """One Linear that is called, one whose weight is used, one that nothing reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.bare, self.idle = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden = input_ids.float()[..., None].expand(-1, -1, 4)
        if (hidden == 0).all():  # asks a meta tensor for its values, as masks do
            hidden = self.called(hidden)
        return hidden @ self.bare.weight


class Model(nn.Module):
    """The head is tied to the embedding, of which `padding` takes a row by itself."""

    def __init__(self, *, padding: bool) -> None:
        super().__init__()
        self.layer, self.padding = Mixer(), padding
        self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> torch.Tensor:
        del use_cache
        hidden = self.embedding(input_ids).to(self.embedding.weight.dtype)
        if self.padding:
            hidden = torch.where((input_ids == 0)[..., None], self.embedding.weight[0], hidden)
        scores: torch.Tensor = self.head(hidden + self.layer(input_ids))
        return scores


@pytest.mark.parametrize("padding", [False, True])
def test_a_weight_that_is_used_without_a_call_is_told_from_one_that_is_not_used(
    padding: bool,
) -> None:
    with torch.device("meta"):
        model = Model(padding=padding)
    use = linear_use(model, ["layer"], [], ends=(model.embedding, model.head))
    assert use.called == {"layer": frozenset({"layer.called"})}
    assert use.bare == {"layer.bare"}
    assert use.embedding_bare is padding


def test_gemma_4_reads_the_row_of_its_padding() -> None:
    blueprint = drawn("gemma4")
    assert blueprint.embedding_bare and not drawn("jamba").embedding_bare
    assert Blueprint.from_json(json.loads(json.dumps(blueprint.to_json()))).embedding_bare


@pytest.mark.parametrize("name", ["jamba", "mamba", "falcon_mamba"])
def test_dt_proj_of_state_space_mixers_stays_dense_and_is_named(name: str) -> None:
    blueprint = drawn(name)
    bare = {linear.name.rpartition(".")[2] for linear in blueprint.linears() if linear.bare}
    assert bare == {"dt_proj"}
    assert any("dt_proj" in note for note in blueprint.notes)


def test_a_transformer_that_layers_share_belongs_to_the_first_that_calls_it() -> None:
    blueprint = drawn("zamba2")
    prefixes = [linear.prefix for linear in blueprint.linears()]
    assert len(prefixes) == len(set(prefixes))
    first, second = (blueprint.layer(f"model.layers.{index}") for index in (1, 3))
    attention = "model.layers.1.shared_transformer.self_attn.q_proj"
    assert attention in {linear.prefix for linear in first.linears}
    assert "model.layers.3.shared_transformer.self_attn.q_proj.weight" in second.shared
    # adapters lie in the first layer's module on disk, and each is called by a layer of its own
    adapters = {x.prefix for x in second.linears if "adapter_list" in x.prefix}
    assert adapters and all(".layers.1." in prefix and "list.1." in prefix for prefix in adapters)
    assert all("list.1." not in linear.prefix for linear in first.linears)


@pytest.mark.parametrize("name", ["kimi_linear", "olmo_hybrid"])
def test_convolutions_that_the_disk_has_in_pieces_are_read_as_one(name: str) -> None:
    blueprint = drawn(name)
    joins = {target.rpartition(".layers.")[2].partition(".")[2] for target in blueprint.joins}
    assert len(joins) == 1 and next(iter(joins)).endswith("conv1d.weight")
    assert all(len(parts) == 3 for parts in blueprint.joins.values())
    assert set(blueprint.carried) >= {x for parts in blueprint.joins.values() for x in parts}
    shared = {name for layer in blueprint.layers for name in layer.shared}
    assert shared == set(blueprint.joins)
    assert Blueprint.from_json(json.loads(json.dumps(blueprint.to_json()))) == blueprint


def test_experts_in_one_matrix_are_read_row_by_row() -> None:
    blueprint = drawn("dbrx")
    name = "transformer.blocks.1.ffn.experts.2"
    down = blueprint.cuts[f"{name}.down_proj.weight"]
    assert (down.stored, down.index, down.blocks, down.transposed) == (
        *("transformer.blocks.1.ffn.experts.mlp.w2", 2, 4, True),
    )
    assert blueprint.layers[1].shapes[f"{name}.down_proj.weight"] == (64, 96)
    assert Blueprint.from_json(json.loads(json.dumps(blueprint.to_json()))) == blueprint
    with pytest.raises(UserError, match=r"w2 is \[383, 64\], which has no matrix"):
        down.shape((383, 64))
