"""llm-compressor's pruning modifiers become presswork's, or are refused with their place."""

from __future__ import annotations

import pytest

from tests.stages.recipes.test_llmcompressor import made, refused

GPTQ = "GPTQModifier: {scheme: W4A16}"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "SparseGPTModifier: {sparsity: 0.5, mask_structure: '2:4', block_size: 64}",
            {"kind": "sparsegpt", "sparsity": 0.5, "mask_structure": "2:4", "block_size": 64},
        ),
        (
            "WandaPruningModifier: {sparsity: 0.6, targets: [Linear], ignore: ['re:.*lm_head']}",
            {"kind": "wanda", "sparsity": 0.6},
        ),
        (
            "MagnitudePruningModifier: {init_sparsity: 0.0, final_sparsity: 0.7,"
            " mask_structure: unstructured, targets: __ALL_PRUNABLE__}",
            {"kind": "magnitude", "sparsity": 0.7, "mask_structure": "0:0"},
        ),
        ("ConstantPruningModifier: {targets: [Linear]}", {"kind": "constant"}),
        (
            "SparseGPTModifier: {sparsity: 0.6, sparsity_profile: OWL, owl_m: 5, owl_lmbda: 0.08}",
            {
                "kind": "sparsegpt",
                "sparsity": 0.6,
                "sparsity_profile": "owl",
                "owl_m": 5,
                "owl_lmbda": 0.08,
            },
        ),
    ],
)
def test_pruning_comes_before_the_solver(text: str, wanted: dict[str, object]) -> None:
    found = made("{s_stage: {m_modifiers: {" + text + ", " + GPTQ + "}}}")
    modifiers = found.sections["modifier"]
    assert list(modifiers) == [wanted["kind"], "gptq"]
    assert modifiers[wanted["kind"]] == wanted


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ("sparsity: [0.5, 0.6]", "sparsity: [0.5, 0.6] is not one number"),
        ("sparsity: 0.5, targets: ['re:.*q_proj']", "targets: ['re:.*q_proj']: what is pruned is"),
        ("sparsity: 0.5, preserve_sparsity_mask: true", "preserve_sparsity_mask"),
        ("sparsity: 0.5, strange: 1", "strange: there is no such option"),
    ],
)
def test_what_pruning_here_cannot_do_is_refused(options: str, place: str) -> None:
    text = "SparseGPTModifier: {" + options + "}"
    assert place in refused("{s_stage: {m_modifiers: {" + text + ", " + GPTQ + "}}}")


def test_expert_pruning_brings_its_nodes_with_it() -> None:
    reap = "REAPPruningModifier: {sparsity: 0.25, ignore: [], report_path: kept.json}"
    found = made("{s_stage: {m_modifiers: {" + reap + ", " + GPTQ + "}}}")
    modifiers = found.sections["modifier"]
    assert list(modifiers) == ["defaults", "reap", "gptq"]
    assert modifiers["defaults"] == ["reap", "_self_"]
    assert modifiers["reap"] == {"kind": "reap", "sparsity": 0.25}
    assert any("report_path is not needed" in note for note in found.notes)
    told = refused("{s_stage: {m_modifiers: {REAPPruningModifier: {ignore: ['re:.*1.*']}}}}")
    assert "ignore: config.json has one number of experts for all layers" in told
