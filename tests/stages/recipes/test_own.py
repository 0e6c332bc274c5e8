"""Our own recipe.yaml says again what it was written from."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from pipeline.config.schema import build
from pipeline.errors import UserError
from pipeline.key import canonical
from pipeline.registry import Registry
from stages.compress.stage import CompressConfig
from stages.recipes.own import translate
from tests.stages.schemes.presets import load


def written(scheme: str, modifiers: list[dict[str, Any]]) -> str:
    """A recipe as `save` writes it."""
    recipe = {
        "scheme": canonical(load(scheme)),
        "modifiers": modifiers,
        "calibration": {"statistics": ["gram"], "tokens": 12},
    }
    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100)


@pytest.mark.parametrize("scheme", ["w4a16_asym", "mixed", "nvfp4", "fp8_block", "none"])
def test_scheme_and_modifiers_come_back(scheme: str) -> None:
    given = [{"kind": "smoothquant", "smoothing_strength": 0.7}, {"kind": "gptq", "descent": 2}]
    registry = Registry.load()
    found = translate(written(scheme, given), registry)
    assert found is not None
    sections = found.sections
    data = {"scheme": sections["scheme"], "modifiers": sections["modifier"]}
    config = build(CompressConfig, data, "", registry)
    assert config.scheme == load(scheme)
    smooth, gptq = config.modifiers
    assert (smooth.smoothing_strength, gptq.descent) == (0.7, 2)
    assert "dataset" in found.notes[0]


def test_a_modifier_that_comes_twice_keeps_its_place() -> None:
    kinds = ["smoothquant", "smoothquant", "rtn"]
    found = translate(written("int8", [{"kind": kind} for kind in kinds]), Registry())
    assert found is not None
    assert [entry["kind"] for entry in found.sections["modifier"].values()] == kinds


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("scheme: {}\nmodifiers: []\nmore: 1", "more: no part of a recipe"),
        ("scheme: 3\nmodifiers: []", "scheme: 3 is given where a mapping belongs"),
        ("scheme: {}\nmodifiers: [{a: 1}]", "modifiers[0]: {'a': 1} names no kind"),
        ("scheme: {a: !x 1}\nmodifiers: [{kind: rtn}]", "scheme.a: it is !x"),
        ("scheme: {}\nmodifiers: [{kind: rtn, observer: !x 1}]", "modifiers[0].observer"),
    ],
)
def test_what_it_cannot_be_is_refused(text: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        translate(text, Registry())
    assert told in str(error.value)


def test_other_yaml_is_left_to_others() -> None:
    for text in ("GPTQModifier: {}", "[]", "scheme: {}", "x"):
        assert translate(text, Registry()) is None
