"""Modifiers that would change nothing stop the plan; a missing solver is told."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from stages.compress.config import CompressConfig
from stages.compress.modifiers.gptq import Gptq
from stages.compress.modifiers.rtn import Rtn
from stages.compress.modifiers.smoothquant import SmoothQuant
from stages.compress.stage import Compress
from stages.model.blueprint import Pair
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeConfig
from tests.stages.formats.fakes import blueprint

G16 = SchemeConfig(weights=QArgs(num_bits=4, strategy="group", group_size=16))
NONE = SchemeConfig()
PAIR = Pair(source="model.layers.0.norm", targets=("model.layers.0.mlp.up_proj",))


def surveyed(scheme: SchemeConfig, *modifiers: Any, pairs: tuple[Pair, ...] = (PAIR,)) -> Any:
    model = blueprint()
    layers = tuple(replace(layer, pairs=pairs) for layer in model.layers)
    site: Any = SimpleNamespace(
        facts={"model": replace(model, layers=layers), "statistics": None},
        artifact=lambda name: None,
    )
    return Compress(CompressConfig(scheme=scheme, modifiers=modifiers)).survey(site)


@pytest.mark.parametrize("modifier", [Gptq(), Rtn(), SmoothQuant()])
def test_a_modifier_of_a_scheme_that_quantizes_nothing(modifier: Any) -> None:
    (problem,) = surveyed(NONE, modifier).problems
    told = f"modifier {modifier.kind!r} would do nothing: the scheme quantizes no weights"
    assert problem.what == told
    assert not surveyed(NONE).problems
    assert not surveyed(G16, modifier).problems


@pytest.mark.parametrize(("kinds", "fine"), [(["norm"], True), (["linear"], False)])
def test_a_transform_without_pairs(kinds: list[str], fine: bool) -> None:
    problems = surveyed(G16, SmoothQuant(pairs=kinds), Gptq()).problems
    assert (not problems) == fine
    assert fine or "'smoothquant' would do nothing: tiny has no pairs" in problems[0].what
    (alone,) = surveyed(G16, SmoothQuant(), pairs=()).problems
    assert "no pairs of modules" in alone.what


def test_smoothing_without_a_solver_says_that_weights_are_rounded() -> None:
    notes = surveyed(G16, SmoothQuant()).notes
    assert [n for n in notes if n.startswith("no solver is named: after smoothquant weights are")]
    assert not [n for n in surveyed(G16, SmoothQuant(), Rtn()).notes if "no solver" in n]
    assert not [n for n in surveyed(G16).notes if "no solver" in n]
