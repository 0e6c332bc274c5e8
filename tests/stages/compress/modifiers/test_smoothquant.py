"""SmoothQuant rewrites a layer that goes on computing the same, and its statistics with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.errors import UserError
from stages.compress.layer.state import LayerState, LazyTensors
from stages.compress.layer.statistics import Statistics
from stages.compress.modifiers.smoothquant import SmoothQuant
from stages.schemes.quant_args import QArgs
from stages.schemes.resolve import resolve
from stages.schemes.scheme import SchemeConfig
from tests.stages.compress.layers import statistics
from tests.stages.model.tiny import Tiny, tiny

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "qwen3_moe", "mixtral")
KINDS = ("gram", "absmax", "absmean", "range")
SOME = [
    name
    if name in ("llama", "gemma3_text", "mixtral")
    else pytest.param(name, marks=pytest.mark.slow)
    for name in FAMILIES
]


def state(model: Tiny, folder: Path, index: int = 0) -> LayerState:
    found = model.pairs().attached(model.blueprint())
    layer = found.layers[index]
    resolved = resolve(SchemeConfig(weights=QArgs()), found).checked()
    mine = {linear.name for linear in layer.linears}
    return LayerState(
        subgraph=layer,
        tensors=LazyTensors(layer.tensors, model.source),
        statistics=Statistics(statistics(layer, folder, KINDS), "cpu"),
        resolved={name: r for name, r in resolved.items() if name in mine},
        dtype=torch.float32,
    )


@pytest.mark.parametrize("pairs", [["norm"], ["norm", "linear"]])
@pytest.mark.parametrize("family", SOME)
def test_the_model_computes_the_same(tmp_path: Path, family: str, pairs: list[str]) -> None:
    model = tiny(family, tmp_path / "model", num_hidden_layers=4)
    skeleton, blueprint = model.skeleton(), model.blueprint()
    from stages.model.layer_tensors import all_tensors

    tensors = all_tensors(blueprint, model.source)
    ids = torch.arange(3, 19)[None]
    with skeleton.materialized(tensors), torch.no_grad():
        before = skeleton.model(ids).logits
    changed = set()
    for index in range(4):
        layer = state(model, tmp_path / "statistics", index)
        SmoothQuant(smoothing_strength=0.5, pairs=pairs).rewrite(layer)
        tensors |= layer.tensors
        changed |= layer.changed
    assert any("norm" in name for name in changed)
    with skeleton.materialized(tensors), torch.no_grad():
        after = skeleton.model(ids).logits
    torch.testing.assert_close(after, before, rtol=2e-4, atol=2e-4 * float(before.abs().max()))


def test_statistics_are_those_of_the_divided_inputs(tmp_path: Path) -> None:
    from tests.stages.compress.layers import inputs_of

    model = tiny("llama", tmp_path / "model", num_hidden_layers=1)
    layer = state(model, tmp_path / "statistics")
    norm = layer.tensors["model.layers.0.input_layernorm.weight"].clone()
    SmoothQuant().rewrite(layer)
    s = norm / layer.tensors["model.layers.0.input_layernorm.weight"]
    inputs, groups = inputs_of(model.blueprint().layers[0])
    name = "model.layers.0.self_attn.k_proj"
    x = inputs[groups[name]] / s
    gram, absmax = layer.statistics.gram(name), layer.statistics.absmax(name)
    assert gram is not None and absmax is not None
    torch.testing.assert_close(gram, x.T @ x, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(absmax, x.abs().amax(dim=0))
    found = layer.statistics.range(name)
    assert found is not None
    torch.testing.assert_close(found[0, 1], x.abs().max())
    torch.testing.assert_close(found[0, 0], -x.abs().max())


def test_outliers_move_into_the_weights(tmp_path: Path) -> None:
    model = tiny("llama", tmp_path / "model", num_hidden_layers=1)
    layer = state(model, tmp_path / "statistics")
    name = "model.layers.0.mlp.up_proj"
    before = layer.statistics.absmax(name)
    SmoothQuant(smoothing_strength=0.8).rewrite(layer)
    after = layer.statistics.absmax(name)
    assert before is not None and after is not None
    assert after.max() / after.median() < before.max() / before.median()


def test_a_bfloat16_norm_is_made_up_for_exactly(tmp_path: Path) -> None:
    model = tiny("llama", tmp_path / "model", dtype=torch.bfloat16, num_hidden_layers=1)
    layer = state(model, tmp_path / "statistics")
    q, norm = "model.layers.0.self_attn.q_proj.weight", "model.layers.0.input_layernorm.weight"
    before = layer.tensors[q].float() * layer.tensors[norm].float()
    SmoothQuant().rewrite(layer)
    assert layer.tensors[norm].dtype == torch.bfloat16
    torch.testing.assert_close(
        layer.tensors[q] * layer.tensors[norm].float(), before, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_a_strength_outside_zero_to_one_is_refused(strength: float) -> None:
    with pytest.raises(UserError, match="0 to 1"):
        SmoothQuant(smoothing_strength=strength)


def test_unknown_pairs_are_refused() -> None:
    with pytest.raises(UserError, match="norm, linear"):
        SmoothQuant(pairs=["all"])
