"""Candidate formats are tried as layers are compressed, and their errors are those of forwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from stages.compress.config import CompressConfig
from stages.compress.grid import grid_of
from stages.compress.layer.state import LayerState, LazyTensors
from stages.compress.layer.statistics import Statistics
from stages.compress.modifiers import AutoRound, Awq, Gptq, Keep, Rtn, SmoothQuant, SparseGpt
from stages.compress.observers.catalog import OBSERVERS
from stages.compress.sensitivity import Sensitivity, SensitivityConfig
from stages.compress.sensitivity_run import Trial, sampled
from stages.compress.solvers.rtn import rtn
from stages.fake_quant.activations import quantize_input
from stages.formats.compressed_tensors_bridge import to_args
from stages.formats.input_params import InputParams, InputRule
from stages.schemes.resolve import Resolved
from stages.schemes.scheme import SchemeConfig, SchemeGroup
from tests.stages.compress.layers import inputs_of, statistics
from tests.stages.model.tiny import Tiny, tiny
from tests.stages.schemes.presets import load

KINDS = ("gram", "absmax", "absmean", "rows", "range")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny("llama", tmp_path_factory.mktemp("llama"), num_hidden_layers=1)


def candidate(name: str) -> SchemeGroup:
    group = load(name).alone()
    weights = group.weights
    if weights is not None and weights.strategy == "group":
        group = replace(group, weights=replace(weights, group_size=16))
    return group


def trial(model: Tiny, folder: Path, group: SchemeGroup, *modifiers: Any) -> Trial:
    layer = model.pairs().attached(model.blueprint()).layers[0]
    artifacts: Any = statistics(layer, folder, KINDS)

    def fresh() -> LayerState:
        return LayerState(
            subgraph=layer,
            tensors=LazyTensors(layer.tensors, model.source),
            statistics=Statistics(artifacts, "cpu"),
            resolved={},
            dtype=torch.float32,
        )

    tries = CompressConfig(scheme=SchemeConfig(), modifiers=modifiers)
    return Trial.of(tries, fresh(), list(layer.linears), Resolved(group="c", scheme=group), fresh)


def forward_error(made: Trial, model: Tiny, group: SchemeGroup, name: str) -> float:
    """|W x - Q(W') Qa(x') / r|^2 / |W x|^2 in float64: r is what transforms did to outputs."""
    inputs, leaders = inputs_of(made.before.subgraph)
    x, before = inputs[leaders[name]], model.source.tensors[f"{name}.weight"].double()
    after = made.layer.tensors[f"{name}.weight"].float()
    s = made.layer.statistics.absmax(name)
    assert s is not None and group.weights is not None
    s = x.abs().amax(dim=0) / s  # what the inputs were divided by
    outputs = (after.double() / s).norm(dim=1) / before.norm(dim=1)
    grid = grid_of(group.weights, torch.float32)
    quantized = rtn(after, grid, OBSERVERS["minmax"](after, grid)).weight
    divided = x / s
    if group.input_activations is not None:
        rule = InputRule(args=to_args(group.input_activations), params=InputParams())
        divided = quantize_input(divided[None], rule, nn.Identity())[0]
    wanted = x.double() @ before.T
    found = (divided.double() @ quantized.double().T) / outputs
    return float((wanted - found).square().sum() / wanted.square().sum())


@pytest.mark.parametrize(
    ("name", "transforms"),
    [
        ("w4a16", ()),
        ("w4a16", (Awq(n_grid=4, pairs=["norm", "linear"]),)),
        ("w8a8", (SmoothQuant(),)),
        ("fp8_dynamic", ()),
    ],
    ids=str,
)
def test_errors_are_those_of_forwards(
    llama: Tiny, tmp_path: Path, name: str, transforms: tuple[Any, ...]
) -> None:
    group = candidate(name)
    made = trial(llama, tmp_path, group, *transforms, Rtn())
    found = dict(made.results(None, "cpu"))
    assert len(found) == 7 and bool(made.layer.changed) == bool(transforms)
    for module, row in found.items():
        wanted = forward_error(made, llama, group, module)
        assert row["relative_error"] == pytest.approx(wanted, rel=2e-3), module


def test_the_solver_and_the_pruner_of_the_run_are_those_that_try(
    llama: Tiny, tmp_path: Path
) -> None:
    group = candidate("w4a16")
    errors = {
        kind: {
            name: row["relative_error"]
            for name, row in trial(llama, tmp_path, group, *modifiers).results(None, "cpu")
        }
        for kind, modifiers in {
            "rtn": (Rtn(),),
            "gptq": (Gptq(),),
            "pruned": (SparseGpt(sparsity=0.5), Gptq()),
        }.items()
    }
    for name, rounded in errors["rtn"].items():
        assert errors["gptq"][name] < rounded < errors["pruned"][name]


def test_the_loss_of_a_module_is_reckoned_in_its_own_outputs(llama: Tiny, tmp_path: Path) -> None:
    group = candidate("w4a16")
    moved = trial(llama, tmp_path, group, Awq(n_grid=4, pairs=["linear"]), Rtn())
    name = "model.layers.0.self_attn.v_proj"
    weight = llama.source.tensors[f"{name}.weight"]
    inputs, leaders = inputs_of(moved.before.subgraph)
    fisher: dict[str, Tensor] = {
        linear.name: torch.arange(1.0, linear.out_features + 1)
        for linear in moved.before.subgraph.linears
    }
    after = moved.layer.tensors[f"{name}.weight"].float()
    ratio = (weight.norm(dim=1) / after.norm(dim=1)).double()
    assert float(ratio.std()) > 0.01  # its outputs are divided, each by something else
    grid = grid_of(load("w4a16").weights if group.weights is None else group.weights, torch.float32)
    error = (after - rtn(after, grid, OBSERVERS["minmax"](after, grid)).weight).double()
    outputs = inputs[leaders[name]].double() @ (error * ratio[:, None]).T
    wanted = 0.5 * float((fisher[name] * outputs.square().mean(dim=0)).sum())
    found = dict(moved.results(fisher, "cpu"))[name]["damage"]
    assert found == pytest.approx(wanted, rel=1e-3)


def config(*modifiers: Any, **scheme: Any) -> SensitivityConfig:
    options = {"a": load("w4a16"), "b": load("fp8_dynamic"), "c": load("fp8")}
    given = SchemeConfig(candidates=["a"], options=options)
    return SensitivityConfig(scheme=replace(given, **scheme), modifiers=modifiers)


def test_only_what_the_modifiers_and_candidates_need_is_gathered() -> None:
    def asked(made: SensitivityConfig) -> set[str]:
        return set(Sensitivity(made).demands()["statistics"])

    assert asked(config()) == asked(config(Gptq())) == {"gram"}
    assert asked(config(Awq(), Gptq())) == {"gram", "absmean"}
    assert asked(config(candidates=["a", "b"])) == {"gram", "rows"}
    assert asked(config(candidates=["c"])) == {"gram", "rows", "range"}
    assert asked(config(Awq(), Gptq(), solver=Rtn(observer="gram"))) == {"gram"}
    assert Sensitivity(config(Awq())).demands()["pairs"] == ("out",)
    assert Sensitivity(config(Gptq())).demands()["pairs"] == ()


def test_learned_rounding_is_tried_by_what_it_starts_from() -> None:
    assert config(AutoRound()).tries.modifiers == (Gptq(),)
    assert config(AutoRound(start="rtn")).tries.modifiers == (Rtn(observer="gram"),)
    assert config(SmoothQuant()).tries.modifiers == (SmoothQuant(), Rtn())


@pytest.mark.parametrize("wrong", [{"modifiers": (Keep(),)}, {"solver": SmoothQuant()}], ids=str)
def test_what_tries_no_format_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="which tries no format"):
        config(*wrong.pop("modifiers", ()), **wrong)


def test_few_rows_stand_for_all_of_a_weight() -> None:
    weight = torch.arange(1000.0)[:, None]
    assert len(sampled(weight)) == 256 and sampled(weight)[-1] == 999
    assert sampled(weight[:100]).shape == (100, 1)
