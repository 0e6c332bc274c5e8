"""Models whose Linears, heads or layers are not what most models have are seen as they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_class import blueprint_of, kind_of
from tests.families.case import Case
from tests.families.dense import DENSE
from tests.families.hybrid import HYBRID
from tests.families.multimodal import MULTIMODAL
from tests.families.tiny import config_of

CASES: dict[str, Case] = {case.name: case for case in (*DENSE, *HYBRID, *MULTIMODAL)}


def drawn(name: str) -> Blueprint:
    config = config_of(CASES[name])
    config.dtype = torch.bfloat16
    return blueprint_of(json.loads(config.to_json_string()))


@pytest.mark.parametrize("name", ["falcon", "falcon_7b"])
def test_a_subclass_that_multiplies_like_a_linear_is_one(name: str) -> None:
    kinds = {linear.kind for layer in drawn(name).layers for linear in layer.linears}
    assert kinds == {"Linear"}


class Grouped(nn.Linear):
    def forward(self, x: Any) -> Any:
        return x.reshape(-1, 2, self.in_features // 2)


class Router(nn.Linear):
    def forward(self, x: Any) -> Any:
        return super().forward(x).topk(2)


@pytest.mark.parametrize("odd", [Grouped, Router])
def test_a_subclass_that_does_something_else_keeps_its_name(odd: type[nn.Linear]) -> None:
    assert kind_of(odd(8, 4, device="meta")) == odd.__name__
    assert kind_of(nn.Linear(8, 4, device="meta")) == "Linear"


def test_heads_may_differ_in_width_from_layer_to_layer() -> None:
    blueprint = drawn("gemma4_text_dense")
    widths = [
        x.out_features for layer in blueprint.layers for x in layer.linears if "q_proj" in x.name
    ]
    assert widths == [64, 128, 64, 128]


@pytest.mark.parametrize("name", ["mamba", "mamba2", "falcon_mamba"])
def test_models_without_attention_have_no_heads(name: str) -> None:
    assert len(drawn(name).layers) == 4


def test_a_head_that_is_called_decoder_is_no_decoder() -> None:
    blueprint = drawn("modernbert-decoder")
    assert blueprint.head == "decoder"
    assert blueprint.members == tuple(f"model.layers.{index}" for index in range(4))


def test_a_whole_without_a_forward_is_run_by_the_part_that_generates_text() -> None:
    blueprint = drawn("qwen3_omni_moe")
    # transformers 5.24 has one more module between them than 5.17
    assert blueprint.decoder in ("thinker.model", "thinker.model.language_model")
    assert blueprint.members == tuple(f"{blueprint.decoder}.layers.{index}" for index in range(4))
    assert blueprint.head == "thinker.lm_head"
    assert any(name.startswith("talker.") for name in blueprint.outside)
