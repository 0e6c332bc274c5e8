"""llm-compressor's rotations become presswork's, or are refused with their place and reason."""

from __future__ import annotations

import pytest

from tests.stages.recipes.test_llmcompressor import config, made, refused

RTN = "QuantizationModifier: {scheme: W4A16}"
FOLDED = "{location: weight_output, targets: [v_proj]}"


def recipe(options: str, name: str = "SpinQuantModifier") -> str:
    return "{s_stage: {m_modifiers: {" + name + ": {" + options + "}, " + RTN + "}}}"


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("", {"rotations": ["R1", "R2"], "transform_type": "hadamard", "block_size": None}),
        (
            "rotations: [r2], transform_type: random-matrix",
            {"rotations": ["R2"], "transform_type": "random-matrix", "block_size": None},
        ),
        (
            "rotations: [R1], transform_block_size: 64, precision: torch.float64, randomize: false,"
            " learnable: false, transform_config: {config_groups: {R1: {type: hadamard, apply: ["
            + FOLDED
            + "]}}}",
            {"rotations": ["R1"], "transform_type": "hadamard", "block_size": 64},
        ),
    ],
)
def test_offline_rotations_come_first(options: str, wanted: dict[str, object]) -> None:
    found = made(recipe(options))
    assert list(found.sections["modifier"]) == ["spinquant", "rtn"]
    assert found.sections["modifier"]["spinquant"] == {"kind": "spinquant", **wanted}
    first, _ = config(recipe(options)).modifiers
    assert first.rotation.rotations == tuple(sorted(wanted["rotations"]))  # type: ignore[call-overload]
    named = [note for note in found.notes if "transform_config" in note or "precision" in note]
    assert len(named) == (2 if "precision" in options else 0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("rotations: [R1, R4]", "rotations: R4: it is computed while the model runs"),
        ("rotations: [R3]", "rotations: R3: it is computed"),
        ("learnable: true", "learnable: rotations are not learned"),
        ("randomize: true", "randomize: llm-compressor refuses it too"),
        ("strange: 1", "strange: there is no such option"),
        (
            "transform_config: {config_groups: {R4: {type: hadamard}}}",
            "transform_config.config_groups.R4: rotations and transform_type say",
        ),
        (
            "transform_config: {config_groups: {R1: {type: random-matrix}}}",
            "'random-matrix' is not as transform_type says",
        ),
        (
            "transform_config: {config_groups: {R1: {apply: [{location: input}]}}}",
            "config_groups.R1: input: it is computed while",
        ),
    ],
)
def test_what_nothing_would_apply_is_refused(options: str, told: str) -> None:
    assert told in refused(recipe(options))


def test_quip_runs_with_the_model() -> None:
    told = refused(recipe("rotations: [v]", "QuIPModifier"))
    assert "QuIPModifier: there is no such modifier here (its rotations u and v run" in told
