"""Every modifier of llm-compressor 0.14 and every field of it: translated, noted or refused.

None is passed over: a value that is not the default changes what the recipe becomes, or a note or
an error names the field. The list is that of the registered classes of the installed release.
"""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from pipeline.config.schema import build
from pipeline.errors import UserError
from pipeline.registry import Registry
from stages.compress.modifiers.gptq import Gptq
from stages.compress.modifiers.rtn import Rtn
from stages.compress.stage import CompressConfig
from stages.recipes.llmcompressor import translate

BASE: dict[str, Any] = {"index": 3, "group": "other", "start": 0.5, "end": 0.7, "update": 0.1}
"""Fields of all modifiers, each with a value that is not its default."""
MIXIN: dict[str, Any] = {
    "config_groups": {"a": {"targets": ["Linear"], "weights": {"num_bits": 8}}},
    "targets": ["re:.*mlp.*"],
    "ignore": ["re:.*down_proj"],
    "scheme": "W8A16",
    "kv_cache_scheme": {"num_bits": 8, "type": "float"},
    "weight_observer": "mse",
    "input_observer": "mse",
    "output_observer": "minmax",
    "observer": {"weights": "imatrix_mse"},
    "bypass_divisibility_checks": True,
}
PRUNING: dict[str, Any] = {
    "sparsity": 0.25,
    "sparsity_profile": "owl",
    "mask_structure": "2:4",
    "owl_m": 3,
    "owl_lmbda": 0.05,
    "targets": ["re:.*mlp.*"],
    "ignore": ["re:.*mlp.*"],
}
ROTATION: dict[str, Any] = {
    "transform_type": "random-matrix",
    "randomize": True,
    "learnable": True,
    "precision": "float32",
    "transform_block_size": 64,
    "transform_config": {"config_groups": {"R3": {"type": "hadamard", "apply": []}}},
}
SMOOTHED = [[["re:.*q_proj", "re:.*k_proj", "re:.*v_proj"], "re:.*input_layernorm"]]
FIELDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "QuantizationModifier": ({"scheme": "FP8"}, MIXIN),
    "GPTQModifier": (
        {"scheme": "W4A16"},
        {
            **MIXIN,
            "block_size": 64,
            "dampening_frac": 0.1,
            "actorder": "none",
            "batched_quantization": 4,
        },
    ),
    "AutoRoundModifier": (
        {"scheme": "W4A16"},
        {
            **MIXIN,
            "iters": 100,
            "enable_torch_compile": True,
            "batch_size": 4,
            "lr": 0.01,
            "device_ids": "0,1",
            "disable_opt_rtn": True,
        },
    ),
    "AWQModifier": (
        {},
        {
            "mappings": [
                {
                    "smooth_layer": "re:.*up_proj",
                    "balance_layers": ["re:.*down_proj"],
                    "activation_hook_target": "mlp",
                }
            ],
            "offload_device": "cpu",
            "duo_scaling": "both",
            "n_grid": 10,
        },
    ),
    "SmoothQuantModifier": (
        {},
        {
            "smoothing_strength": 0.8,
            "mappings": [[["re:.*down_proj"], "re:.*up_proj"]],
            "ignore": ["re:.*mlp.*"],
            "algorithm": "log_equalization",
            "num_calibration_steps": 5,
            "calibration_function": "f",
        },
    ),
    "LogarithmicEqualizationModifier": ({}, {"smoothing_strength": 0.8, "mappings": SMOOTHED[:0]}),
    "SpinQuantModifier": (
        {},
        {
            **ROTATION,
            "rotations": ["R1"],
            "mappings": {"embedding": "re:.*embed"},
            "norm_mappings": [{"norm": "re:.*norm"}],
        },
    ),
    "QuIPModifier": ({}, {**ROTATION, "rotations": ["u"], "targets": ["x"], "ignore": ["y"]}),
    "SparseGPTModifier": (
        {"sparsity": 0.5},
        {
            **PRUNING,
            "block_size": 64,
            "dampening_frac": 0.1,
            "preserve_sparsity_mask": True,
            "offload_hessians": True,
        },
    ),
    "WandaPruningModifier": ({"sparsity": 0.5}, PRUNING),
    "MagnitudePruningModifier": (
        {"init_sparsity": 0.0, "final_sparsity": 0.5},
        {
            "targets": ["re:.*mlp.*"],
            "init_sparsity": 0.1,
            "final_sparsity": 0.25,
            "update_scheduler": "linear",
            "scheduler_args": {"a": 1},
            "mask_structure": "2:4",
            "leave_enabled": True,
            "apply_globally": True,
        },
    ),
    "ConstantPruningModifier": ({}, {"targets": ["re:.*mlp.*"]}),
    "REAPPruningModifier": (
        {"sparsity": 0.5},
        {"sparsity": 0.25, "ignore": ["re:.*layers.0.*"], "report_path": "a.json"},
    ),
}
"""Modifier -> (what a recipe must say of it, every own field with another value)."""
DROPPED = {"config_groups": ("scheme",), "scheme": ()}
"""What a field takes the place of."""
WHOLE = "QuIPModifier"
"""It has no counterpart: refused with the reason, whatever its fields are."""


def became(name: str, options: dict[str, Any]) -> tuple[Any, tuple[str, ...], str]:
    """Sections, notes and error of a recipe with one modifier."""
    text = yaml.safe_dump({"quant_stage": {"quant_modifiers": {name: options}}})
    try:
        found = translate(text, Registry.load())
    except UserError as error:
        return None, (), str(error)
    assert found is not None
    return found.sections, found.notes, ""


@pytest.mark.parametrize("name", list(FIELDS))
def test_no_field_is_passed_over(name: str) -> None:
    needed, own = FIELDS[name]
    plain = became(name, needed)
    assert bool(plain[2]) == (name == WHOLE), plain[2]
    for field, value in {**BASE, **own}.items():
        kept = {k: v for k, v in needed.items() if k not in DROPPED.get(field, ())}
        sections, notes, error = became(name, {**kept, field: value})
        named = [text for text in (*notes, *error.splitlines()) if f"{name}.{field}" in text]
        if name == WHOLE:
            assert "transform_config" in error
        else:
            assert "there is no such option" not in error, (field, error)
            assert named or (not error and sections != plain[0]), (field, notes, error)


def test_a_field_that_no_class_has_is_refused() -> None:
    for name in set(FIELDS) - {WHOLE}:
        _, _, error = became(name, {**FIELDS[name][0], "no_such_field": 1})
        assert f"{name}.no_such_field: there is no such option" in error


WEIGHTS = {"num_bits": 4, "strategy": "group", "group_size": 64}


def groups(**weights: dict[str, str]) -> dict[str, Any]:
    """config_groups by the last part of names; `Linear` is the class, which holds for the rest."""
    return {
        f"group_{k}": {
            "targets": [part if part == "Linear" else f"re:.*{part}$"],
            "weights": {**WEIGHTS, **more},
        }
        for k, (part, more) in enumerate(weights.items())
    }


@pytest.mark.parametrize(
    ("name", "first", "rest", "wanted"),
    [
        ("QuantizationModifier", {"observer": "mse"}, {}, {"observer": "mse"}),
        ("QuantizationModifier", {}, {"observer": "imatrix_mse"}, {"observer": "minmax"}),
        ("GPTQModifier", {"actorder": "static"}, {"actorder": "none"}, {"actorder": "static"}),
        ("GPTQModifier", {"observer": "mse", "actorder": "weight"}, {}, {"observer": "mse"}),
    ],
)
def test_groups_may_differ_in_observer_and_actorder(
    name: str, first: dict[str, str], rest: dict[str, str], wanted: dict[str, str]
) -> None:
    given = {"config_groups": groups(down_proj=first, o_proj=first, Linear=rest)}
    if "actorder" in first and "actorder" not in rest:
        given["actorder"] = "static"
    sections, _, error = became(name, given)
    assert not error
    (solver,) = build(
        CompressConfig,
        {"scheme": sections["scheme"], "modifiers": sections["modifier"]},
        "",
        Registry.load(),
    ).modifiers
    assert isinstance(solver, Rtn | Gptq)
    for module in ("model.layers.3.mlp.down_proj", "model.layers.3.self_attn.o_proj"):
        for option, value in wanted.items():
            assert getattr(solver.of(module), option) == value
    other: Any = solver.of("model.layers.3.mlp.up_proj")
    wide = {"imatrix_mse": "imatrix", "weight": "static"}
    for option, value in rest.items():
        assert getattr(other, option) == wide.get(value, value)
    if first.get("observer") and not rest:
        assert other.observer == "minmax"


def test_a_class_that_is_not_the_last_has_no_options_of_its_own() -> None:
    given = {"config_groups": groups(Linear={"observer": "mse"})}
    given["config_groups"]["z"] = {"targets": ["MyLinear"], "weights": WEIGHTS}
    _, _, error = became("GPTQModifier", given)
    assert "observer mse, actorder static for a class of modules, ['Linear']: name them" in error
