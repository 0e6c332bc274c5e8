"""Models known by their tensors' names alone: fused experts, towers, extra prediction layers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_class import blueprint_of
from stages.model.blueprint_from_names import outline_of
from stages.model.experts.containers import layout_of
from stages.model.experts.fused_names import ALTERNATING, HALVES
from stages.model.meta_model import config_of, meta_model
from stages.schemes.resolve import resolve
from tests.families.drive import CASES
from tests.families.tiny import config_of as tiny_config
from tests.stages.model.experts.tiny import tiny_experts
from tests.stages.model.tiny import Spec, Tiny
from tests.stages.schemes.presets import load

FUSED = ["gpt_oss", "llama4_text", "gemma4_text", "granitemoe", "qwen3_vl_moe", "mistral3"]


def outline(model: Tiny, **more: tuple[int, ...]) -> Blueprint:
    specs = {name: replace(spec, dtype="BF16") for name, spec in model.source.specs().items()}
    specs |= {name: Spec(name=name, shape=shape, dtype="BF16") for name, shape in more.items()}
    return outline_of(model.config, specs, why="tests")


@pytest.mark.parametrize("family", FUSED)
def test_the_parts_of_fused_experts_are_those_that_the_class_tells(
    family: str, tmp_path: Path
) -> None:
    model = tiny_experts(family, tmp_path)
    found, known = outline(model), model.blueprint()
    assert found.cuts == known.cuts
    assert found.cuts
    experts = {linear.prefix for linear in known.linears() if linear.expert}
    assert {linear.prefix for linear in found.linears() if linear.expert} == experts
    assert not any("fused into one tensor" in note for note in found.notes)


def test_the_rows_of_an_unknown_model_are_not_guessed(tmp_path: Path) -> None:
    model = tiny_experts("gpt_oss", tmp_path)
    model.config["model_type"] = "newer"
    found = outline(model)
    assert not found.cuts
    assert any("fused into one tensor" in note for note in found.notes)


@pytest.mark.slow
def test_known_layouts_are_those_of_transformers_classes() -> None:
    found: dict[str, bool] = {}
    for case in CASES:
        config = config_of(json.loads(tiny_config(case).to_json_string()))
        kind = config.get_text_config(decoder=True).model_type
        if kind in HALVES | ALTERNATING:
            for module in meta_model(config, "float32").modules():
                layout = layout_of(module)
                if layout is not None:
                    found[kind] = layout.interleaved
    assert {kind for kind, alternating in found.items() if alternating} == ALTERNATING
    assert found.keys() >= {"gpt_oss", "gemma4_text", "granitemoe", "llama4_text", "mistral4"}


@pytest.mark.parametrize("family", ["qwen3_vl_moe", "mistral3"])
def test_towers_stay_dense_unless_they_are_named(family: str, tmp_path: Path) -> None:
    model = tiny_experts(family, tmp_path)
    for blueprint in (model.blueprint(), outline(model)):
        layers = {linear.prefix for layer in blueprint.layers for linear in layer.linears}
        vision = {linear.prefix for linear in blueprint.outside_linears} - {blueprint.head}
        assert not any("vis" in name for name in layers)
        assert sum("vis" in name for name in vision) >= 4
        chosen = resolve(load("fp8_dynamic"), blueprint).checked()
        assert not any("vis" in name for name in chosen)
        one = min(name for name in vision if "vis" in name)
        scheme = replace(load("fp8_dynamic"), targets=["Linear", one])
        named = resolve(scheme, blueprint).checked()
        prefixes = {linear.name: linear.prefix for linear in blueprint.linears()}
        assert {prefixes[name] for name in named} - layers == {one}


def test_extra_prediction_layers_of_a_multimodal_model_are_compressed_when_outlined(
    tmp_path: Path,
) -> None:
    model = tiny_experts("qwen3_vl_moe", tmp_path)
    layer = "model.language_model.layers.1."
    shapes = {name: spec.shape for name, spec in model.source.specs().items()}
    mtp = {
        name.replace(layer, "mtp.layers.0."): shape
        for name, shape in shapes.items()
        if name.startswith(layer)
    }
    found = outline(model, **mtp)
    assert [unit.name for unit in found.layers] == [
        "model.language_model.layers.0",
        "model.language_model.layers.1",
        "mtp.layers.0",
    ]
    assert any(name.startswith("mtp.layers.0.mlp.experts.3.") for name in found.cuts)
    specs = model.source.specs() | {n: Spec(name=n, shape=s) for n, s in mtp.items()}
    assert set(blueprint_of(model.config, specs=specs).carried) == set(mtp)
