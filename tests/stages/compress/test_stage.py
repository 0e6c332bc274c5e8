"""Compress nodes on tiny real models: what they ask for, what they write, what they refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import UserError
from pipeline.key import digest
from stages.compress.compress_outside import CompressOutside
from stages.compress.modifiers.awq import Awq
from stages.compress.modifiers.base import Transform
from stages.compress.modifiers.gptaq import Gptaq
from stages.compress.modifiers.gptq import Gptq
from stages.compress.modifiers.log_equalization import LogEqualization
from stages.compress.modifiers.rtn import Rtn
from stages.compress.modifiers.smoothquant import SmoothQuant
from stages.compress.stage import Compress, CompressConfig
from stages.formats.checksums import checksum
from stages.formats.compressed_layer import CompressedLayer
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeConfig, SchemeGroup
from tests.stages.compress.layers import compress, info, inputs_of
from tests.stages.formats.fakes import blueprint
from tests.stages.model.tiny import Tiny, tiny
from tests.stages.schemes.presets import load

G16 = QArgs(num_bits=4, strategy="group", group_size=16)
WIDE = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny("llama", tmp_path_factory.mktemp("llama"), dtype=torch.bfloat16, **WIDE)


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny(
        "qwen3_moe",
        tmp_path_factory.mktemp("moe"),
        dtype=torch.bfloat16,
        **{**WIDE, "moe_intermediate_size": 64, "mlp_only_layers": []},
    )


@pytest.mark.parametrize(
    ("scheme", "modifiers", "needed"),
    [
        ("w4a16", (), ()),
        ("w4a16", (Rtn(observer="mse"),), ()),
        ("w4a16", (Rtn(observer="imatrix"),), ("gram",)),
        ("w4a16", (Gptq(),), ("gram",)),
        ("fp8", (), ("range",)),
        ("fp8_dynamic", (), ()),
        ("nvfp4", (Gptq(),), ("gram", "range")),
        ("w8a8", (SmoothQuant(), Gptq()), ("gram", "absmax")),
        ("fp8", (SmoothQuant(), Rtn()), ("absmax", "range")),
        ("w4a16", (Awq(), Rtn()), ("gram", "absmean")),
        ("w8a8", (Awq(), Gptq()), ("gram", "absmean", "rows")),
        ("nvfp4", (Awq(), Rtn()), ("gram", "absmax", "absmean", "rows", "range")),
        ("w8a8", (SmoothQuant(smoothing_strength="auto"),), ("gram", "absmax", "rows")),
        ("w8a8", (LogEqualization(), Rtn()), ("absmax",)),
        ("none", (Gptq(),), ()),
    ],
)
def test_it_asks_for_the_statistics_it_uses(
    scheme: str, modifiers: tuple[Any, ...], needed: tuple[str, ...]
) -> None:
    stage = Compress(CompressConfig(scheme=load(scheme), modifiers=modifiers))
    pairs = ("out",) if any(isinstance(m, Transform) for m in modifiers) else ()
    running = ("activations", "target", "original", "tokens", "proof")
    idle = dict.fromkeys((*running, "outliers", "unrotated"), ())
    assert stage.demands() == {"statistics": needed, "pairs": pairs, **idle}


def test_a_solver_that_runs_layers_asks_for_both_chains() -> None:
    stage = Compress(CompressConfig(scheme=load("w4a16"), modifiers=(Gptaq(),)))
    asked = {name: outputs for name, outputs in stage.demands().items() if outputs}
    chain = ("activations",)
    assert asked == {
        "statistics": ("gram",),  # for routed experts, until it is known that there are none
        "activations": chain,
        "original": chain,
        "tokens": ("out",),
        "proof": ("out",),
    }


def test_the_lm_head_needs_what_its_solver_does() -> None:
    def needed(scheme: str, *modifiers: Any) -> tuple[str, ...]:
        config = CompressConfig(scheme=load(scheme), modifiers=modifiers)
        return CompressOutside(config).demands()["statistics"]

    assert needed("w8a8", Awq(), Rtn()) == ()
    assert needed("w8a8", Awq(), Gptq()) == ("gram",)
    assert needed("nvfp4", Awq(), Gptq()) == ("gram", "range")


@pytest.mark.parametrize(
    ("modifiers", "says"),
    [((Rtn(), Gptq()), "2 solvers: rtn, gptq"), ((Gptq(), SmoothQuant()), "put 'gptq' last")],
)
def test_an_order_that_makes_no_sense_is_refused(modifiers: tuple[Any, ...], says: str) -> None:
    with pytest.raises(UserError, match=says):
        CompressConfig(scheme=load("w4a16"), modifiers=modifiers)


def test_a_survey_finds_problems_or_says_what_it_costs() -> None:
    model = blueprint()
    site: Any = SimpleNamespace(facts={"model": model})
    assert len(Compress(CompressConfig(scheme=load("w4a16"))).survey(site).problems) == 1
    survey = Compress(CompressConfig(scheme=SchemeConfig(weights=G16))).survey(site)
    assert set(survey.estimates) == set(model.members)
    estimate = survey.estimates[model.members[0]]
    assert 0 < estimate.bytes < model.layers[0].bytes / 2


def test_the_key_of_a_layer_knows_only_its_own_modules() -> None:
    site: Any = SimpleNamespace(facts={"model": blueprint(), "statistics": None})

    def keys(*groups: SchemeGroup) -> list[str]:
        scheme = SchemeConfig(weights=G16, groups={str(i): g for i, g in enumerate(groups)})
        stage = Compress(CompressConfig(scheme=scheme, modifiers=(Gptq(),)))
        survey = stage.survey(site)
        return [digest(survey.settled.semantics(member)) for member in survey.estimates]

    second = SchemeGroup(weights=replace(G16, num_bits=8), targets=["re:.*layers.1.*down_proj"])
    assert keys()[0] == keys(second)[0]
    assert keys()[1] != keys(second)[1]


def test_the_key_of_a_float16_model_tells_that_its_results_changed() -> None:
    def told(dtype: str) -> Any:
        model = replace(blueprint(), dtype=dtype)
        site: Any = SimpleNamespace(facts={"model": model, "statistics": None})
        survey = Compress(CompressConfig(scheme=SchemeConfig(weights=G16))).survey(site)
        return survey.settled.semantics(next(iter(survey.estimates)))

    assert told("float16")["float16"] == 2
    assert "float16" not in told("bfloat16")


def test_the_key_knows_every_option_of_the_solver() -> None:
    def key(solver: Gptq) -> str:
        stage = Compress(CompressConfig(scheme=load("w4a16"), modifiers=(solver,)))
        return digest(stage.semantics(None))

    assert key(Gptq()) == key(Gptq())
    assert key(Gptq(descent=3)) != key(Gptq())


@pytest.mark.parametrize(
    ("scheme", "modifiers"),
    [
        ("w4a16", (Gptq(),)),
        ("w4a16_asym", (Gptq(),)),
        ("w8a8", (SmoothQuant(), Gptq())),
        ("fp8", (Rtn(),)),
        ("nvfp4", (Gptq(),)),
        ("mxfp4", (Rtn(observer="mse"),)),
    ],
)
def test_what_is_read_back_is_what_the_solver_chose(
    tmp_path: Path, llama: Tiny, scheme: str, modifiers: tuple[Any, ...]
) -> None:
    config = CompressConfig(scheme=load(scheme), modifiers=modifiers)
    (artifact,) = compress(llama, config, tmp_path, layers=[0]).artifacts
    layer = CompressedLayer(artifact)
    subgraph = llama.blueprint().layers[0]
    assert set(layer.weights.specs()) == set(subgraph.tensors.values())
    sums = load_file(artifact.path / "checksum.safetensors")
    for linear in subgraph.linears:
        name = f"{linear.prefix}.weight"
        weight = layer.weights.read([name])[name]
        found = checksum(weight.float(), layer.weights.schemes[linear.prefix], layer.dtype)
        assert torch.equal(found["rows"], sums[f"{linear.prefix}.rows"])
        assert torch.equal(found["columns"], sums[f"{linear.prefix}.columns"])
        module = layer.modules[linear.name]
        assert 0 < module["relative_error"] < 0.05
        assert module["bits"] < 9


def test_experts_are_solved_together_and_written_one_by_one(tmp_path: Path, moe: Tiny) -> None:
    config = CompressConfig(scheme=SchemeConfig(weights=G16), modifiers=(Gptq(),))
    (artifact,) = compress(moe, config, tmp_path, layers=[0]).artifacts
    names = set(load_file(artifact.path / "shard.safetensors"))
    for expert in range(4):
        for part in ("gate_proj", "up_proj", "down_proj"):
            assert f"model.layers.0.mlp.experts.{expert}.{part}.weight_packed" in names
    assert "model.layers.0.mlp.gate.weight" in names
    assert len(artifact.meta["result"]["layers"]) == 4 + 4 * 3


def test_gptq_beats_rounding_in_the_metric_that_is_reported(tmp_path: Path, llama: Tiny) -> None:
    found = {}
    for solver in (Gptq(), Rtn(observer="gram")):
        config = CompressConfig(scheme=SchemeConfig(weights=G16), modifiers=(solver,))
        run = compress(llama, config, tmp_path / solver.kind, layers=[0])
        rows = run.artifacts[0].meta["result"]["layers"]
        found[solver.kind] = {row["name"]: row["relative_error"] for row in rows}
    assert all(found["gptq"][name] < found["rtn"][name] for name in found["rtn"])


def test_fused_modules_get_one_global_scale(tmp_path: Path, llama: Tiny) -> None:
    config = CompressConfig(scheme=load("nvfp4"))
    (artifact,) = compress(llama, config, tmp_path, layers=[0]).artifacts
    tensors = load_file(artifact.path / "shard.safetensors")
    for part in ("weight_global_scale", "input_global_scale"):
        attention = [tensors[f"model.layers.0.self_attn.{n}_proj.{part}"] for n in "qkv"]
        assert len({float(scale) for scale in attention}) == 1
    gate, up = (tensors[f"model.layers.0.mlp.{n}_proj.weight_global_scale"] for n in ("gate", "up"))
    assert gate == up


def test_static_scales_cover_the_calibrated_range(tmp_path: Path, llama: Tiny) -> None:
    config = CompressConfig(scheme=load("fp8"))
    (artifact,) = compress(llama, config, tmp_path, layers=[0]).artifacts
    tensors = load_file(artifact.path / "shard.safetensors")
    inputs, groups = inputs_of(llama.blueprint().layers[0])
    name = "model.layers.0.mlp.down_proj"
    largest = inputs[groups[name]].abs().max()
    torch.testing.assert_close(
        tensors[f"{name}.input_scale"].float() * 448, largest.reshape(1), rtol=0.01, atol=0
    )


def test_a_layer_out_of_scope_is_written_as_it_is(tmp_path: Path, llama: Tiny) -> None:
    scheme = SchemeConfig(weights=G16, ignore=["lm_head", r"re:model\.layers\.1\..*"])
    run = compress(llama, CompressConfig(scheme=scheme), tmp_path, layers=[1])
    written = load_file(run.artifacts[0].path / "shard.safetensors")
    for name in llama.blueprint().layers[1].tensors.values():
        assert torch.equal(written[name], llama.source.tensors[name])
    assert info(run.artifacts[0])["modules"] == {}


def test_the_same_layer_gives_the_same_bytes(tmp_path: Path, moe: Tiny) -> None:
    config = CompressConfig(scheme=SchemeConfig(weights=G16), modifiers=(Gptq(),))
    runs = [compress(moe, config, tmp_path / name, layers=[0]).artifacts[0] for name in "ab"]
    for name in ("shard.safetensors", "checksum.safetensors", "layer.json"):
        assert runs[0].file(name).read_bytes() == runs[1].file(name).read_bytes()
