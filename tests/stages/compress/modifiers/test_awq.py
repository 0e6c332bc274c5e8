"""AWQ chooses as real forwards in float64 do, and leaves what a layer computes as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.errors import StageFailed, UserError
from stages.compress.folding import by_target
from stages.compress.grid import grid_of
from stages.compress.layer.state import LayerState, LazyTensors
from stages.compress.layer.statistics import Statistics
from stages.compress.modifiers import Awq, LogEqualization, SmoothQuant
from stages.compress.modifiers.base import Transform
from stages.compress.observers.catalog import OBSERVERS
from stages.compress.observers.qparams import global_scale_of
from stages.compress.solvers.rtn import rtn
from stages.compress.transforms.awq import awq_scales, ratios, weight_magnitudes
from stages.fake_quant.activations import quantize_input
from stages.formats.compressed_tensors_bridge import to_args
from stages.formats.input_params import InputParams, InputRule
from stages.schemes.resolve import resolve
from stages.schemes.scheme import SchemeConfig
from tests.stages.compress.layers import inputs_of, statistics
from tests.stages.model.tiny import Tiny, tiny
from tests.stages.schemes.presets import load

KINDS = ("gram", "absmax", "absmean", "rows", "range")


def scheme(name: str) -> SchemeConfig:
    found = load(name)
    weights = found.weights
    if weights is not None and weights.strategy == "group" and weights.scale_dtype is None:
        found = replace(found, weights=replace(weights, group_size=16))
    return found


def state(
    model: Tiny, folder: Path, name: str = "w4a16", index: int = 0, **edit: Any
) -> LayerState:
    found = model.pairs().attached(model.blueprint())
    layer = found.layers[index]
    resolved = resolve(scheme(name), found).checked()
    mine = {linear.name for linear in layer.linears}
    return LayerState(
        subgraph=layer,
        tensors=LazyTensors(layer.tensors, model.source),
        statistics=Statistics(statistics(layer, folder, KINDS, **edit), "cpu"),
        resolved={name: r for name, r in resolved.items() if name in mine},
        dtype=torch.float32,
    )


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny("llama", tmp_path_factory.mktemp("llama"), num_hidden_layers=1)


def rounded_inputs(x: Tensor, args: Any) -> Tensor:
    """Dynamic scales of tokens, or NVFP4's under the global scale of the largest magnitude."""
    if args is None:
        return x
    params = InputParams()
    if args.strategy == "tensor_group":
        params = InputParams(global_scale=448.0 * 6.0 / x.abs().max().reshape(1))
    rule = InputRule(args=to_args(args), params=params)
    return quantize_input(x[None], rule, nn.Identity())[0]


def oracle(model: Tiny, name: str, readers: list[str], x: Tensor, duo: bool) -> list[float]:
    """The output error of every candidate by forwards of the readers in float64."""
    found = scheme(name)
    assert found.weights is not None
    grid, observe = grid_of(found.weights, torch.float32), OBSERVERS["minmax"]
    weights = [model.source.tensors[f"{reader}.weight"] for reader in readers]
    width = grid.width(weights[0].shape[1])
    magnitude = sum(weight_magnitudes(w, width) for w in weights) / sum(map(len, weights))
    assert isinstance(magnitude, Tensor)
    means = x.abs().mean(dim=0)  # as the statistic has it: a last bit decides ties of codes
    scales = [awq_scales(means, magnitude, r, duo_scaling=duo) for r in ratios(10)]
    errors = []
    for s in [torch.ones_like(scales[0]), *scales]:
        whole = global_scale_of(torch.cat(weights) * s, grid)
        total = 0.0
        for weight in weights:
            chosen = rtn(weight * s, grid, observe(weight * s, grid, global_scale=whole)).weight
            given = rounded_inputs(x / s, found.input_activations)
            wrong = x.double() @ weight.double().T - given.double() @ chosen.double().T
            total += float(wrong.square().sum())
        errors.append(total)
    return errors


@pytest.mark.parametrize("duo", [True, False])
@pytest.mark.parametrize("name", ["w4a16", "w8a8", "nvfp4"])
def test_the_choice_is_that_of_forwards_in_float64(
    llama: Tiny, tmp_path: Path, name: str, duo: bool
) -> None:
    layer = state(llama, tmp_path, name)
    Awq(n_grid=10, duo_scaling=duo, pairs=["norm"]).rewrite(layer)
    inputs, groups = inputs_of(layer.subgraph)
    assert [len(found["targets"]) for found in layer.searched] == [3, 2]
    for found in layer.searched:
        errors = oracle(llama, name, found["targets"], inputs[groups[found["targets"][0]]], duo)
        best = min(range(len(errors)), key=errors.__getitem__)
        assert found["ratio"] == (None if best == 0 else (best - 1) / 10)
        assert found["error"] < found["error_before"]
        quotient = found["error"] / found["error_before"]
        assert quotient == pytest.approx(errors[best] / errors[0], rel=1e-3)


@pytest.mark.parametrize(
    "transform",
    [Awq(n_grid=4), SmoothQuant(smoothing_strength="auto", pairs=["norm", "linear"])],
    ids=lambda transform: transform.kind,
)
@pytest.mark.parametrize(
    "family",
    [
        "llama",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("gemma2", "mixtral", "qwen3_moe")),
    ],
)
def test_the_model_computes_the_same(tmp_path: Path, family: str, transform: Transform) -> None:
    from stages.model.layer_tensors import all_tensors

    count = 1 if family == "llama" else 4
    model = tiny(family, tmp_path / "model", num_hidden_layers=count)
    skeleton = model.skeleton()
    tensors = all_tensors(model.blueprint(), model.source)
    ids = torch.arange(3, 19)[None]
    with skeleton.materialized(tensors), torch.no_grad():
        before = skeleton.model(ids).logits
    searched = []
    for index in range(count):
        layer = state(model, tmp_path / "statistics", "w8a8", index)
        transform.rewrite(layer)
        tensors |= layer.tensors
        searched += layer.searched
    assert len(searched) == sum(
        len(layer.pairs) for layer in model.pairs().attached(model.blueprint()).layers
    )
    assert any(found["error"] < found["error_before"] for found in searched)
    assert all(found["error"] <= found["error_before"] for found in searched)
    with skeleton.materialized(tensors), torch.no_grad():
        after = skeleton.model(ids).logits
    torch.testing.assert_close(after, before, rtol=2e-4, atol=2e-4 * float(before.abs().max()))


def outliers(found: dict[str, Tensor]) -> None:
    """Two channels of every input a hundred times as large, as those of language models are."""
    for x in found.values():
        x.div_(x.abs().mean(dim=0))
        x[:, [3, 17]] *= 100


@pytest.mark.parametrize("observer", ["minmax", "mse", "gram"])
def test_outlier_channels_round_better(llama: Tiny, tmp_path: Path, observer: str) -> None:
    layer = state(llama, tmp_path, edit=outliers)
    Awq(observer=observer, pairs=["norm", "linear"]).rewrite(layer)
    assert len(layer.searched) == 4
    for found in layer.searched[:2]:
        assert found["error"] < 0.7 * found["error_before"]


def test_what_is_reckoned_is_what_rounding_then_leaves(llama: Tiny, tmp_path: Path) -> None:
    layer = state(llama, tmp_path, edit=outliers)
    Awq(pairs=["norm"]).rewrite(layer)
    grid = grid_of(scheme("w4a16").weights, torch.float32)  # type: ignore[arg-type]
    for found in layer.searched:
        error, whole = 0.0, 0.0
        for name in found["targets"]:
            weight, G = layer.tensors[f"{name}.weight"], layer.statistics.gram(name)
            assert G is not None
            wrong = weight - rtn(weight, grid, OBSERVERS["minmax"](weight, grid)).weight
            error += float(((wrong @ G) * wrong).sum())
            whole += float(((weight @ G) * weight).sum())
        assert found["error"] == pytest.approx(error / whole, rel=1e-3)


def test_grouped_heads_share_a_factor(llama: Tiny, tmp_path: Path) -> None:
    layer = state(llama, tmp_path)
    before = layer.peek("model.layers.0.self_attn.o_proj.weight").clone()
    Awq(pairs=["linear"]).rewrite(layer)
    pair = next(p for p in layer.subgraph.pairs if p.source.endswith("v_proj"))
    factor = (layer.tensors[f"{pair.targets[0]}.weight"] / before).median(dim=0).values
    assert pair.repeats == 2 and not torch.allclose(factor, torch.ones_like(factor))
    kept = factor.view(-1, pair.repeats, pair.head_dim)[:, 0].flatten()
    torch.testing.assert_close(by_target(kept, pair), factor, rtol=1e-4, atol=0)


def test_inputs_that_are_not_finite_are_one_clear_error(llama: Tiny, tmp_path: Path) -> None:
    layer = state(llama, tmp_path)
    path = tmp_path / "0.gram" / "gram.safetensors"
    grams = load_file(path)
    name = layer.statistics.leader("model.layers.0.self_attn.q_proj")
    grams[name][0, 0] = torch.nan
    save_file(grams, path)
    with pytest.raises(StageFailed, match=r"modifier awq finds no factors between .*_layernorm"):
        Awq().rewrite(state_again(layer, tmp_path))


def state_again(layer: LayerState, folder: Path) -> LayerState:
    """The layer with the statistics as they now are on the disk."""
    from tests.stages.formats.fakes import FakeArtifact

    _, groups = inputs_of(layer.subgraph)
    meta = {"groups": groups, "tokens": dict.fromkeys(groups.values(), 256)}
    found = {kind: FakeArtifact(path=folder / f"0.{kind}", meta=meta) for kind in KINDS}
    return replace(layer, statistics=Statistics(found, "cpu"))


def test_without_a_token_nothing_is_folded(llama: Tiny, tmp_path: Path) -> None:
    layer = state(llama, tmp_path, tokens=0)
    Awq().rewrite(layer)
    assert not layer.changed and not layer.searched


def test_logarithmic_equalization_tames_outliers(llama: Tiny, tmp_path: Path) -> None:
    layer = state(llama, tmp_path, edit=outliers)
    name = "model.layers.0.mlp.up_proj"
    before = layer.statistics.absmax(name)
    LogEqualization().rewrite(layer)
    after = layer.statistics.absmax(name)
    assert before is not None and after is not None
    torch.testing.assert_close(after, torch.log2(2 + before), rtol=1e-5, atol=0)


def test_statistics_follow_inputs_and_scheme() -> None:
    assert Awq().statistics() == {"gram", "absmean"} and Awq().input_statistics() == {"rows"}
    auto = SmoothQuant(smoothing_strength="auto")
    assert auto.statistics() == {"gram", "absmax"} and auto.input_statistics() == {"rows"}
    assert SmoothQuant().statistics() == {"absmax"} and not SmoothQuant().input_statistics()
    assert (Awq().tries, Awq(duo_scaling="both").tries, SmoothQuant().tries) == (21, 41, 0)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"n_grid": 0}, "n_grid is 0"),
        ({"duo_scaling": "maybe"}, "duo_scaling is 'maybe'"),
        ({"n_grid": 1, "duo_scaling": False}, "changes nothing"),
        ({"observer": "magic"}, "observer is 'magic'"),
        ({"pairs": []}, "pairs is"),
    ],
)
def test_options_that_awq_does_not_have_are_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        Awq(**options)


def test_a_strength_is_a_number_or_auto() -> None:
    with pytest.raises(UserError, match="0 to 1, or auto"):
        SmoothQuant(smoothing_strength="much")
    assert SmoothQuant(smoothing_strength=1).smoothing_strength == 1.0
