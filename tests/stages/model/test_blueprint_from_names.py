"""Outlines from tensor names alone: against blueprints drawn from the class, and on odd names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_names import natural, outline_of
from stages.model.checkpoint_names import Expected
from stages.model.families import is_router
from tests.stages.model.tiny import tiny

WHY = "a test"


def spec(*shape: int, dtype: str = "BF16") -> Expected:
    return Expected(shape=shape, dtype=dtype)


def outlined(specs: dict[str, Expected], **config: Any) -> Blueprint:
    return outline_of({"model_type": "odd", **config}, specs, why=WHY)


@pytest.mark.parametrize("family", ["llama", "qwen3", "qwen3_moe", "qwen2_moe", "mixtral", "glm4"])
def test_it_finds_the_linears_and_partners_that_the_class_has(family: str, tmp_path: Path) -> None:
    model = tiny(family, tmp_path)
    drawn = model.blueprint()
    found = outline_of(model.config, model.source.specs(), why=WHY)
    assert found.members == drawn.members
    for mine, theirs in zip(found.layers, drawn.layers, strict=True):
        prefixes = {x.name: x.prefix for x in theirs.linears}
        wanted = {x for x in prefixes.values() if not is_router(x)}
        assert {x.prefix for x in mine.linears} == wanted
        shapes = {x.prefix: (x.out_features, x.in_features, x.bias) for x in theirs.linears}
        assert all(
            shapes[x.prefix] == (x.out_features, x.in_features, x.bias) for x in mine.linears
        )
        fused = {frozenset(prefixes[name] for name in group) for group in theirs.fused}
        assert {frozenset(group) for group in mine.fused} == fused
        assert mine.bytes == theirs.bytes
    assert (found.tied, found.head, found.embedding) == (drawn.tied, drawn.head, drawn.embedding)
    assert found.outside == drawn.outside
    assert {x.prefix for x in found.outside_linears} == {x.prefix for x in drawn.outside_linears}
    assert (found.dtype, found.vocab_size) == (drawn.dtype, drawn.vocab_size)


def test_it_survives_its_own_json() -> None:
    found = outlined({"h.0.fc.weight": spec(8, 8), "h.0.experts.up": spec(4, 8, 8)})
    assert found.notes and Blueprint.from_json(found.to_json()) == found


def test_every_stack_of_numbered_modules_gives_units_in_order_of_numbers() -> None:
    names = [f"transformer.h.{i}.attn.wq" for i in (0, 10, 2)]
    names += ["vision.blocks.1.fc1", "vision.blocks.0.fc1", "mtp.layers.0.eh_proj"]
    names += ["transformer.h.2.experts.11.w1", "transformer.h.2.experts.2.w1"]
    found = outlined({f"{name}.weight": spec(8, 8) for name in names})
    assert found.members == (
        "mtp.layers.0",
        "transformer.h.0",
        "transformer.h.2",
        "transformer.h.10",
        "vision.blocks.0",
        "vision.blocks.1",
    )
    experts = [x.name for x in found.layer("transformer.h.2").linears if x.expert]
    assert experts == ["transformer.h.2.experts.2.w1", "transformer.h.2.experts.11.w1"]


def test_only_matrices_that_multiply_activations_are_linears() -> None:
    kept = {"l.0.mixer.in_proj.weight": spec(8, 8), "l.0.mlp.w2.weight": spec(8, 16)}
    dense = {
        "l.0.embed_tokens.weight": spec(96, 8),
        "l.0.attn.relative_attention_bias.weight": spec(8, 8),
        "l.0.mlp.gate.weight": spec(4, 8),
        "l.0.mlp.gate.wg.weight": spec(4, 8),
        "l.0.mixer.conv1d.weight": spec(8, 4),
        "l.0.ln_1.weight": spec(8, 1),
        "l.0.input_layernorm.weight": spec(8),
        "l.0.shared_head.head.weight": spec(96, 8),
        "l.0.mixer.A_log": spec(8, 8),
        "l.0.other.weight": spec(8, 8, dtype="I32"),
        "embed_tokens.weight": spec(96, 8),
    }
    found = outlined({**dense, **kept})
    assert {f"{x.name}.weight" for x in found.layers[0].linears} == set(kept)
    assert set(found.layers[0].tensors) == set(dense) - {"embed_tokens.weight"} | set(kept)
    assert any("I32" in note for note in found.notes)


def test_weights_stored_the_other_way_round_are_turned() -> None:
    attention, norm = "h.0.attn.c_attn.weight", "h.0.attn.other.weight"
    turned = outlined(
        {attention: spec(8, 24), "h.0.mlp.c_fc.weight": spec(8, 32), norm: spec(8, 8)}
    )
    sizes = {x.name: (x.out_features, x.in_features) for x in turned.linears()}
    assert sizes == {"h.0.attn.c_attn": (24, 8), "h.0.attn.other": (8, 8), "h.0.mlp.c_fc": (32, 8)}
    assert turned.turned == (attention, "h.0.mlp.c_fc.weight")
    assert turned.layers[0].shapes[attention] == (24, 8)
    upright = outlined({attention: spec(24, 8), "h.0.mlp.c_fc.weight": spec(32, 8)})
    assert [x.name for x in upright.linears()] == ["h.0.attn.c_attn", "h.0.mlp.c_fc"]
    assert upright.turned == ()


def test_fused_experts_are_named_and_left_alone() -> None:
    name = "model.layers.0.mlp.experts.gate_up_proj"
    found = outlined({name: spec(4, 16, 8), "model.layers.0.o_proj.weight": spec(8, 8)})
    (note,) = found.notes
    assert "model.layers.*.mlp.experts.gate_up_proj (1 tensors)" in note
    assert name in found.layers[0].tensors


def test_a_head_that_is_not_there_is_the_embedding() -> None:
    names = {"model.embed_tokens.weight": spec(96, 8), "model.layers.0.o_proj.weight": spec(8, 8)}
    for config in ({}, {"tie_word_embeddings": True}, {"text_config": {"tie_word_embeddings": 1}}):
        found = outlined(names, **config)
        assert found.tied and found.outside["lm_head.weight"] == "model.embed_tokens.weight"
    apart = outlined(names, tie_word_embeddings=False)
    assert not apart.tied and apart.head == "" and not apart.outside_linears


def test_the_dtype_is_what_the_config_states_or_most_weights_have() -> None:
    specs = {"l.0.a.weight": spec(8, 8), "l.0.b.weight": spec(2, 8, dtype="F32")}
    assert outlined(specs).dtype == "bfloat16"
    assert outlined(specs, torch_dtype="float16").dtype == "float16"
    assert outlined(specs, text_config={"dtype": "float32"}).dtype == "float32"


def test_a_checkpoint_without_layers_is_refused() -> None:
    with pytest.raises(UserError, match="no tensor of this checkpoint is the weight of a Linear"):
        outlined({"fc.weight": spec(8, 8), "l.0.norm.weight": spec(8)})


def test_numbers_sort_by_value() -> None:
    assert sorted(["a.10", "a.9", "a.b", "a.2.c"], key=natural) == ["a.b", "a.2.c", "a.9", "a.10"]


def test_neither_torch_nor_transformers_is_imported() -> None:
    code = """
import sys
import stages.model.blueprint_from_names, stages.patch.outline
assert not {"torch", "transformers", "compressed_tensors", "safetensors"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
