"""Recipes of llm-compressor become our config, or are refused with every reason."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import yaml
from compressed_tensors.quantization.quant_scheme import PRESET_SCHEMES
from compressed_tensors.utils.match import match_targets
from torch import nn

from pipeline.config.recipe_import import Translation
from pipeline.config.schema import build
from pipeline.errors import UserError
from pipeline.registry import Registry
from stages.compress.stage import CompressConfig
from stages.recipes.groups import PRESETS
from stages.recipes.llmcompressor import translate
from stages.schemes.resolve import matches
from tests.stages.recipes import texts
from tests.stages.schemes.presets import PACKS_SIX, load

SINCE_020 = {"MXFP4XFP8", "MXFP6A16", "MXFP6A8"}

registry = cache(Registry.load)


def made(text: str) -> Translation:
    found = translate(text, registry())
    assert found is not None
    return found


def config(text: str) -> CompressConfig:
    """What the compress stage is told, checked as strictly as any config."""
    sections = made(text).sections
    data = {"scheme": sections["scheme"], "modifiers": sections["modifier"]}
    return build(CompressConfig, data, "", registry())


def refused(text: str) -> str:
    with pytest.raises(UserError) as told:
        translate(text, registry())
    return str(told.value)


def one(options: str, name: str = "QuantizationModifier") -> str:
    """A recipe of one modifier, its options in YAML's flow style."""
    return f"quant_stage: {{quant_modifiers: {{{name}: {{{options}}}}}}}"


def weights(**more: Any) -> str:
    """A group with such weights, in flow style."""
    plain = {"num_bits": 8, "strategy": "channel", **more}
    group = {"targets": ["Linear"], "weights": plain}
    return yaml.safe_dump({"g": group}, default_flow_style=True, width=10_000).strip()


def test_a_preset_is_the_shipped_scheme_rounded_to_nearest() -> None:
    found = config(texts.PRESET)
    shipped = load("fp8_dynamic")
    assert found.scheme.weights == shipped.weights
    assert found.scheme.input_activations == shipped.input_activations
    assert found.scheme.ignore == ["lm_head", "re:.*gate$"]
    assert [(m.kind, m.observer) for m in found.modifiers] == [("rtn", "minmax")]


@pytest.mark.parametrize("name", sorted(PRESET_SCHEMES))
def test_every_preset_is_known_in_any_case(name: str) -> None:
    for said in (name, name.lower()):
        found = config(one(f"scheme: {said}, ignore: [lm_head]"))
        shipped = load(name.lower())
        assert (found.scheme.weights, found.scheme.input_activations, found.scheme.format) == (
            shipped.weights,
            shipped.input_activations,
            shipped.format,
        )


def test_the_presets_are_those_of_compressed_tensors() -> None:
    assert PRESETS - set(PRESET_SCHEMES) == (set() if PACKS_SIX else SINCE_020)
    assert set(PRESET_SCHEMES) <= PRESETS


def test_gptq_keeps_its_numbers_and_does_nothing_more() -> None:
    found = config(texts.GPTQ_GROUPS)
    (gptq,) = found.modifiers
    assert (gptq.block_size, gptq.dampening_frac, gptq.actorder) == (64, 0.05, "static")
    assert (gptq.observer, gptq.refit, gptq.descent) == ("mse", 0, 0)
    assert found.scheme.weights is not None and found.scheme.weights.group_size == 32
    assert found.scheme.groups == {}


def test_autoround_keeps_its_iterations_and_starts_from_gptq() -> None:
    found = config(
        one("scheme: W4A16, ignore: [lm_head], iters: 50, lr: 0.005", "AutoRoundModifier")
    )
    (learned,) = found.modifiers
    assert (learned.kind, learned.iterations, learned.batch_size) == ("autoround", 50, 8)
    assert (learned.start, learned.observer, learned.lr) == ("gptq", "gram", None)
    assert found.scheme.weights == load("w4a16").weights
    told = refused("a_stage: {b_modifiers: {AutoRoundModifier: {scheme: W4A16, itters: 5}}}")
    assert "itters" in told


def test_smoothquant_comes_before_its_solver() -> None:
    found = config(texts.SMOOTH)
    smooth, gptq = found.modifiers
    assert (smooth.kind, smooth.smoothing_strength, smooth.pairs) == ("smoothquant", 0.8, ["norm"])
    assert (gptq.kind, gptq.observer) == ("gptq", "minmax")
    assert found.scheme.weights == load("w8a8").weights


def test_mappings_that_equal_what_is_inferred_are_taken() -> None:
    assert config(texts.MAPPED).modifiers[0].pairs == ["norm"]


def test_several_groups_stay_apart_and_names_of_enumerations_are_read() -> None:
    scheme = config(texts.MIXED).scheme
    (down,) = scheme.groups.values()
    assert down.targets == ["re:.*down_proj$"] and down.weights is not None
    assert (down.weights.type, down.weights.symmetric) == ("int", False)
    assert down.format == "pack-quantized"
    assert scheme.targets == ["re:.*self_attn.*_proj$"] and scheme.weights is not None
    assert scheme.weights.type == "float"
    assert scheme.input_activations is not None and scheme.input_activations.observer is None


def test_the_format_of_the_cache_is_taken() -> None:
    cache = config(texts.CACHE).scheme.kv_cache
    assert cache is not None
    assert (cache.num_bits, cache.type, cache.strategy) == (8, "float", "tensor")


@pytest.mark.parametrize(
    "text",
    [
        "GPTQModifier: {scheme: W4A16}",
        "- GPTQModifier: {scheme: W4A16}",
        "quant_modifiers: {GPTQModifier: {scheme: W4A16}}",
        "test_stage: {quant_modifiers: [{GPTQModifier: {scheme: W4A16}}]}",
        "default_stage_0: {default_modifiers: {GPTQModifier: {scheme: W4A16}}}",
        "modifiers: [{GPTQModifier: {scheme: W4A16}}]",
        '{"s_stage": {"m_modifiers": {"GPTQModifier": {"scheme": "W4A16"}}}}',
    ],
)
def test_every_form_of_a_recipe_is_read(text: str) -> None:
    assert [m.kind for m in config(text).modifiers] == ["gptq"]


@dataclass(frozen=True)
class Case:
    options: str
    want: dict[str, Any]
    name: str = "QuantizationModifier"


OBSERVED = "targets: [Linear], weights: {num_bits: 8}, input_activations: {num_bits: 8"
CASES = {
    "observer of the modifier": Case("scheme: W8A16, weight_observer: mse", {"observer": "mse"}),
    "observers in a mapping": Case("scheme: W8A16, observer: {weights: mse}", {"observer": "mse"}),
    "memoryless mse": Case(
        f"config_groups: {weights(observer='memoryless_mse')}", {"observer": "mse"}
    ),
    "imatrix": Case(
        f"config_groups: {weights(observer='imatrix_mse')}", {"observer": "imatrix"}, "GPTQModifier"
    ),
    "no order": Case("scheme: W4A16, actorder: null", {"actorder": "none"}, "GPTQModifier"),
    "order by weight": Case(
        "scheme: W4A16, actorder: weight", {"actorder": "static"}, "GPTQModifier"
    ),
    "order of a group": Case(
        f"config_groups: {weights(actorder='weight')}", {"actorder": "static"}, "GPTQModifier"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_options_reach_the_solver(name: str) -> None:
    case = CASES[name]
    (solver,) = config(one(case.options, case.name)).modifiers
    assert {key: getattr(solver, key) for key in case.want} == case.want


def test_calibrated_inputs_are_observed_as_llm_compressor_does() -> None:
    def observer(options: str) -> str | None:
        inputs = config(one(options)).scheme.input_activations
        assert inputs is not None
        return inputs.observer

    assert observer("scheme: FP8") == "static_minmax"
    assert observer("scheme: FP8, input_observer: mse") == "mse"
    assert observer(f"config_groups: {{g: {{{OBSERVED}}}}}}}") == "minmax"
    assert observer(f"config_groups: {{g: {{{OBSERVED}, observer: static_minmax}}}}}}") == (
        "static_minmax"
    )


def test_the_format_of_attention_is_taken() -> None:
    group = "{targets: ['re:.*self_attn$'], input_activations: {num_bits: 8, type: float}}"
    scheme = config(one(f"config_groups: {{a: {group}}}")).scheme
    assert scheme.attention is not None and scheme.attention.type == "float"
    assert scheme.weights is None


def test_the_group_that_compressed_tensors_would_choose_matches_first() -> None:
    bits = {"Linear": 8, "re:.*b$": 4, "re:.*a.*": 5, "m.b": 6, "re:.*z": 7}
    groups = {
        f"g{index}": {"targets": list(pair), "weights": {"num_bits": 2 + index}}
        for index, pair in enumerate([("Linear", "re:.*b$"), ("re:.*a.*", "m.b"), ("re:.*z",)])
    }
    scheme = config(one(f"config_groups: {yaml.safe_dump(groups, default_flow_style=True)}")).scheme
    owner = {target: g["weights"]["num_bits"] for g in groups.values() for target in g["targets"]}
    for name in ("m.b", "m.ab", "m.a", "m.b.z", "m.other", "m.a.b"):
        theirs = owner[match_targets(name, nn.Linear(1, 1), list(bits))[0]]
        mine = next(
            group.weights.num_bits
            for _, group in scheme.ordered()
            if any(matches(target, (name,), "Linear") for target in group.targets)
        )
        assert mine == theirs, name


def test_what_means_nothing_here_is_told_and_left_out() -> None:
    found = made(
        one("scheme: W4A16, sequential_targets: [LlamaDecoderLayer], start: 0.0", "GPTQModifier")
    )
    told = "\n".join(found.notes)
    assert "sequential_targets is not needed" in told and "start is not needed" in told
    assert "refit=0" in told
    assert "sequential_targets" not in found.sections["modifier"]["gptq"]


def test_everything_that_cannot_be_translated_is_told_at_once_with_its_place() -> None:
    told = refused(
        "default_stage: {default_modifiers: {QuIPModifier: {randomize: true}, "
        "StrangeModifier: {sparsity: 0.5}, GPTQModifier: {scheme: W4A16, actorder: dynamic}}}"
    )
    assert "3 parts of the recipe cannot be translated" in told
    assert "default_stage.default_modifiers.QuIPModifier: there is no such modifier here" in told
    assert "default_stage.default_modifiers.StrangeModifier: there is no such" in told
    assert "GPTQModifier.actorder: 'dynamic' is not had" in told


REFUSED = {
    "scheme: W9A9": "'W9A9' is no preset",
    "scheme: ../../secret": "is no preset",
    "scheme: mixed": "is no preset",
    "scheme: W4A16, config_groups: {}": "both scheme and config_groups",
    "ignore: [lm_head]": "neither scheme nor config_groups",
    "scheme: W4A16, wieght_observer: mse": "wieght_observer: there is no such option",
    "scheme: W4A16, weight_observer: magic": "'magic' is not had",
    "scheme: NVFP4, input_observer: minmax": "static_minmax only",
    "scheme: W4A16, ignore: {a: 1}": "is no list of texts",
    "scheme: W4A16, output_observer: mse": "outputs, which are not quantized",
    "config_groups: {a: 3}": "where a mapping belongs",
    "config_groups: {a: {targets: [Linear]}}": "it has no weights",
    "config_groups: {a: {targets: [Linear], weights: {num_bits: 8, what: 1}}}": (
        "config_groups.a.weights.what: there is no such option"
    ),
    "config_groups: {a: {targets: [L], weights: {}, output_activations: {}}}": "outputs of modules",
    "config_groups: {a: {targets: [L], weights: {observer: mse}}, "
    "b: {targets: [M], weights: {}}}": "observer mse for a class of modules",
    "scheme: W4A16, kv_cache_scheme: {observer: minmax}": "is not had for attention",
    "scheme: {W4A16: [Linear], UNQUANTIZED: ['re:.*x']}": "go into ignore",
    "scheme: !!python/object/apply:os.system [ls]": "a value that only a program can read",
    "scheme: W4A16, targets: !secret x": "a value that only a program can read",
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_is_not_had_is_refused_with_its_reason(options: str) -> None:
    told = refused(one(options))
    assert REFUSED[options] in told
    assert "quant_stage.quant_modifiers.QuantizationModifier" in told


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("algorithm: other", "is not had, smoothquant and log_equalization are"),
        ("ignore: [x]", "all pairs of a kind"),
        ("mappings: [[['re:.*fc1'], 're:.*norm']]", "no pair that presswork infers"),
        ("mappings: [[[gate_proj, up_proj], post_attention_layernorm]]", "k_proj, q_proj, v_proj"),
        ("mappings: 3", "is not [readers, what feeds them]"),
        ("mapping: []", "there is no such option"),
    ],
)
def test_a_smoothquant_of_another_kind_is_refused(options: str, why: str) -> None:
    told = refused(
        f"modifiers: [{{SmoothQuantModifier: {{{options}}}}}, "
        "{QuantizationModifier: {scheme: W8A8}}]"
    )
    assert why in told and "modifiers[0].SmoothQuantModifier" in told


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a_stage: {b_modifiers: {}, c: 4}", "a_stage.c: 4 belongs to no stage"),
        ("a_stage: {b_modifiers: {}}", "there is no modifier in it"),
        ("a_stage: {b_modifiers: {GPTQModifier: 3}}", "where a mapping belongs"),
        (
            "a_stage: {b_modifiers: {GPTQModifier: {scheme: W4A16}, "
            "QuantizationModifier: {scheme: FP8}}}",
            "only one modifier can choose the weights",
        ),
        ("a_stage: {b_modifiers: {StrangeModifier: {}}}", "there is no such modifier here"),
    ],
)
def test_a_recipe_that_is_none_is_refused(text: str, why: str) -> None:
    assert why in refused(text)


def test_other_yaml_is_left_to_others() -> None:
    for text in ("a: 3", "[1, 2]", "just text", "", "scheme: {}\nmodifiers: []"):
        assert translate(text, registry()) is None


def test_awq_keeps_its_options_and_what_offloads_is_told() -> None:
    found = made(texts.AWQ)
    awq, rtn = config(texts.AWQ).modifiers
    assert (awq.kind, awq.n_grid, awq.duo_scaling, awq.pairs) == (
        "awq",
        20,
        True,
        ["norm", "linear"],
    )
    assert rtn.kind == "rtn"
    assert any("offload_device is not needed" in note for note in found.notes)


NORMS = (
    "{smooth_layer: 're:.*input_layernorm$', balance_layers: ['re:.*q_proj$', 're:.*k_proj$', "
    "'re:.*v_proj$']}, {smooth_layer: 're:.*post_attention_layernorm$', balance_layers: "
    "['re:.*mlp.experts.*.gate_proj$', 're:.*mlp.experts.*.up_proj$']}"
)
LINEARS = (
    "{smooth_layer: 're:.*v_proj$', balance_layers: ['re:.*o_proj$']}, "
    "{smooth_layer: 're:.*up_proj$', balance_layers: ['re:.*down_proj$']}"
)


@pytest.mark.parametrize(
    ("mappings", "pairs"), [(NORMS, ["norm"]), (f"{NORMS}, {LINEARS}", ["norm", "linear"])]
)
def test_mappings_of_awq_become_kinds_of_pairs(mappings: str, pairs: list[str]) -> None:
    text = (
        f"modifiers: [{{AWQModifier: {{mappings: [{mappings}], n_grid: 10, duo_scaling: both}}}}, "
        "{GPTQModifier: {scheme: W4A16}}]"
    )
    awq, gptq = config(text).modifiers
    assert (awq.n_grid, awq.duo_scaling, awq.pairs, gptq.kind) == (10, "both", pairs, "gptq")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("n_grids: 3", "n_grids: there is no such option"),
        ("mappings: [[a, b]]", "is no mapping of smooth_layer, balance_layers"),
        ("mappings: [{smooth: a}]", "mappings[0].smooth: there is no such option"),
        (
            "mappings: [{smooth_layer: 're:.*fc1', balance_layers: ['re:.*fc2']}]",
            "no pair that presswork infers",
        ),
        ("n_grid: !secret 3", "a value that only a program can read"),
    ],
)
def test_an_awq_that_cannot_be_translated_is_refused(options: str, why: str) -> None:
    assert why in refused(f"modifiers: [{{AWQModifier: {{{options}}}}}]")


def test_logarithmic_equalization_by_either_name() -> None:
    for name, options in (
        ("SmoothQuantModifier", "algorithm: log_equalization, smoothing_strength: 0.5"),
        ("LogarithmicEqualizationModifier", ""),
    ):
        text = f"modifiers: [{{{name}: {{{options}}}}}, {{QuantizationModifier: {{scheme: W8A8}}}}]"
        equalization, rtn = config(text).modifiers
        assert (equalization.kind, equalization.pairs) == ("log_equalization", ["norm"])
        assert rtn.kind == "rtn"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reap:
    sparsity: float = 0.5
    merge: bool = True


def test_a_modifier_that_a_package_adds_is_taken_with_its_options() -> None:
    own = Registry.load()
    own.register("modifier", "reap", Reap)
    with pytest.raises(UserError, match=r"REAPPruningModifier\.was: there is no such option"):
        translate(one("sparsity: 0.5, was: 1", "REAPPruningModifier"), own)
    found = translate(one("sparsity: 0.25, merge: false", "REAPPruningModifier"), own)
    assert found is not None
    assert found.sections["modifier"] == {
        "defaults": ["reap", "_self_"],
        "reap": {"kind": "reap", "sparsity": 0.25, "merge": False},
    }


def test_what_llm_compressor_tags_for_itself_is_refused_where_it_counts() -> None:
    text = texts.AWQ.replace("AWQModifier", "StrangeModifier").replace("n_grid: 20", "merge: true")
    text = text.replace("offload_device", "sparsity").replace("      duo_scaling: true\n", "")
    told = refused(text)
    assert "StrangeModifier: there is no such modifier here" in told and "Sentinel" not in told
    text = text.replace("StrangeModifier", "REAPPruningModifier")
    own = Registry.load()
    own.register("modifier", "reap", Reap)
    with pytest.raises(UserError, match=r"REAPPruningModifier\.sparsity: it is !python/object"):
        translate(text, own)


def test_translating_imports_no_torch() -> None:
    code = (
        "import sys; from pipeline.registry import Registry; "
        "from stages.recipes import llmcompressor, own; "
        "llmcompressor.translate('GPTQModifier: {scheme: W4A16}', Registry.load()); "
        "assert 'torch' not in sys.modules and 'compressed_tensors' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
