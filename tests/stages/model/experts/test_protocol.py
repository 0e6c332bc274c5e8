"""Containers are found by their protocol, and taken apart without changing what they compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from stages.model.checkpoint_names import index_in
from stages.model.experts.containers import layout_of
from stages.model.experts.linear_experts import LinearExperts
from stages.model.layer_tensors import all_tensors
from stages.model.structure.expert_proof import apart_of, prove_experts
from stages.weights.cut_source import CutSource
from tests.stages.model.experts.families import EXPERTS
from tests.stages.model.experts.tiny import IDS, random_model, tiny_experts

QUICK = [
    "dbrx",
    "aria_text",
    "gpt_oss",
    "llama4_text",
    "nemotron_h",
    "granitemoe",
    "deepseek_v3",
    "gemma4_text",
]
"""One family of each layout, of each way to call a container, of each way to store it."""
ALL = [
    family if family in QUICK else pytest.param(family, marks=pytest.mark.slow)
    for family in EXPERTS
]


@pytest.mark.parametrize("family", ALL)
def test_experts_taken_apart_compute_the_same(family: str) -> None:
    proofs = prove_experts(random_model(family), IDS)
    assert len(proofs) >= 2  # a class of containers, and the model
    containers = [proof for proof in proofs.values() if proof.kind.endswith("Experts")]
    assert containers
    assert all(proof.exact for proof in containers)


@pytest.mark.parametrize("family", ALL)
def test_linears_are_filled_from_what_transformers_saves(family: str, tmp_path: Path) -> None:
    model = tiny_experts(family, tmp_path)
    bones = model.skeleton()
    blueprint = bones.blueprint
    experts = [linear for layer in blueprint.layers for linear in layer.linears if linear.expert]
    per_expert = 2 if family == "nemotron_h" else 3
    assert experts
    assert len(experts) % (4 * per_expert) == 0
    assert all(".experts." in linear.prefix for linear in experts)
    assert not blueprint.carried
    source = CutSource(model.source, blueprint.cuts)
    with torch.no_grad(), bones.materialized(all_tensors(blueprint, source)):
        mine = bones.model(input_ids=IDS, use_cache=False).logits
    wanted = random_model(family)(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-4)


class Interleaved(nn.Module):
    """A container that nobody has heard of: no flags, gate and up alternate."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.gate_up_proj = nn.Parameter(torch.randn(3, 10, 8, generator=generator))
        self.down_proj = nn.Parameter(torch.randn(3, 8, 5, generator=generator))
        self.act_fn = nn.SiLU()

    def forward(self, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        output = torch.zeros_like(hidden)
        for expert in range(3):
            rows, place = torch.where(index == expert)
            both = hidden[rows] @ self.gate_up_proj[expert].T
            inner = self.act_fn(both[:, ::2]) * both[:, 1::2]
            result = inner @ self.down_proj[expert].T * weights[rows, place, None]
            output.index_add_(0, rows, result)
        return output


class Odd(nn.Module):
    """Says that its weights are transposed, which their shapes deny."""

    has_gate, has_bias, is_transposed, is_concatenated = True, False, True, True

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.zeros(3, 10, 8))
        self.down_proj = nn.Parameter(torch.zeros(3, 8, 5))
        self.act_fn = nn.SiLU()

    def forward(self, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        return hidden


def test_what_a_container_does_not_say_is_found_out_by_the_proof() -> None:
    model = random_model("gpt_oss")
    model.model.layers[1].mlp.experts = Interleaved()
    with pytest.raises(UserError, match="Interleaved compute something else"):
        prove_experts(model, IDS)


class Backwards(nn.Module):
    """A container with names of its own, which gives `up` before `gate`."""

    def __init__(self, *, up_first: bool = True, inner: int = 48) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.act, self.hidden_size, self.up_first = nn.SiLU(), 64, up_first
        self.one, self.two, self.three = (
            nn.Parameter(torch.randn(4, inner, 64, generator=generator)) for _ in range(3)
        )

    def forward(self, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        output = torch.zeros_like(hidden)
        for expert in range(4):
            rows, place = torch.where(index == expert)
            first, second = (hidden[rows] @ w[expert].T for w in (self.one, self.two))
            up, gate = (first, second) if self.up_first else (second, first)
            result = (self.act(gate) * up) @ self.three[expert] * weights[rows, place, None]
            output.index_add_(0, rows, result)
        return output


def test_a_container_with_names_of_its_own_is_read_by_order_and_proven() -> None:
    model = random_model("gpt_oss")
    model.model.layers[1].mlp.experts = Backwards(up_first=False)
    proofs = prove_experts(model, IDS)
    assert proofs["Backwards"].difference < 1e-6
    model.model.layers[1].mlp.experts = Backwards()
    with pytest.raises(UserError, match="Backwards compute something else"):
        prove_experts(model, IDS)
    assert layout_of(Backwards(inner=64)) is None  # square: it does not tell which way round


def test_another_layout_is_refused_by_class_name() -> None:
    assert layout_of(Odd()) is None
    with pytest.raises(UserError, match="Odd"):
        LinearExperts.of(Odd())


def test_parts_of_a_fused_tensor_are_the_linears_weights() -> None:
    model = random_model("gpt_oss")
    container = model.model.layers[0].mlp.experts
    expert = apart_of(container)[2]
    fused, bias = container.gate_up_proj[2], container.gate_up_proj_bias[2]
    assert torch.equal(expert.gate_proj.weight, fused[:, ::2].T)
    assert torch.equal(expert.up_proj.weight, fused[:, 1::2].T)
    assert torch.equal(expert.up_proj.bias, bias[1::2])
    assert torch.equal(expert.down_proj.weight, container.down_proj[2].T)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("layers.0.mlp.experts.7.w1.weight", r"\.experts.*.w1.weight"),
        ("model.layers.3.mlp.experts.7.gate_proj.weight", "mlp.experts.*.gate_proj.weight"),
    ],
)
def test_the_number_of_an_expert_is_read_from_every_kind_of_pattern(
    name: str, pattern: str
) -> None:
    assert index_in(name, pattern) == 7
