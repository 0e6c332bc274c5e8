"""Modifiers that would change nothing stop the plan; a missing solver is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import UserError
from stages.compress.config import CompressConfig
from stages.compress.modifiers.awq import Awq
from stages.compress.modifiers.gptq import Gptq
from stages.compress.modifiers.log_equalization import LogEqualization
from stages.compress.modifiers.rtn import Rtn
from stages.compress.modifiers.smoothquant import SmoothQuant
from stages.compress.stage import Compress
from stages.model.pairs.proven import KindOfLayer, PairPattern, ProvenPairs
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeConfig
from tests.stages.formats.fakes import blueprint

G16 = SchemeConfig(weights=QArgs(num_bits=4, strategy="group", group_size=16))
NONE = SchemeConfig()
PAIR = PairPattern(source="post_attention_layernorm", targets=("mlp.gate_proj", "mlp.up_proj"))


class Stored:
    """A result of node `pairs`: these patterns for every layer."""

    def __init__(self, *patterns: PairPattern) -> None:
        layers = tuple(layer.name for layer in blueprint().layers)
        kind = KindOfLayer(layers=layers, head_dim=16, patterns=patterns)
        self.proven = ProvenPairs(kinds=(kind,))

    def json(self, name: str) -> Any:
        assert name == "pairs.json"
        return self.proven.to_json()


def surveyed(scheme: SchemeConfig, *modifiers: Any, stored: Stored | None = None) -> Any:
    facts = {"model": blueprint(), "statistics": None, "pairs": None}
    site: Any = SimpleNamespace(facts=facts, artifact=lambda name: stored)
    return Compress(CompressConfig(scheme=scheme, modifiers=modifiers)).survey(site)


@pytest.mark.parametrize("modifier", [Gptq(), Rtn(), SmoothQuant(), Awq(), LogEqualization()])
def test_a_modifier_of_a_scheme_that_quantizes_nothing(modifier: Any) -> None:
    (problem,) = surveyed(NONE, modifier).problems
    told = f"modifier {modifier.kind!r} would do nothing: the scheme quantizes no weights"
    assert problem.what == told
    assert not surveyed(NONE).problems
    assert not surveyed(G16, modifier).problems


def test_negative_scales_want_symmetric_integers_and_a_search() -> None:
    floats = SchemeConfig(weights=QArgs(num_bits=8, type="float", strategy="channel"))
    wanted = Gptq(negative_scales=True)
    (problem,) = surveyed(floats, wanted).problems
    assert "negative_scales is true, but no weight is quantized to symmetric" in problem.what
    assert not surveyed(G16, wanted).problems
    with pytest.raises(UserError, match="observer minmax tries no scales"):
        Rtn(negative_scales=True)


@pytest.mark.parametrize(("kinds", "fine"), [(["norm"], True), (["linear"], False)])
def test_a_transform_without_pairs(kinds: list[str], fine: bool) -> None:
    problems = surveyed(G16, SmoothQuant(pairs=kinds), Gptq(), stored=Stored(PAIR)).problems
    assert (not problems) == fine
    assert fine or "'smoothquant' would do nothing: tiny has no pairs" in problems[0].what
    assert fine or str(problems[0].remedy).endswith("modifier.smoothquant.pairs=[norm]")
    dense = SchemeConfig(weights=G16.weights, ignore=["re:.*mlp.*"])
    (unread,) = surveyed(dense, SmoothQuant(pairs=kinds), Gptq(), stored=Stored(PAIR)).problems
    assert "with a reader that is quantized" in unread.what
    assert unread.remedy == "leave it out: modifier=[] for none at all"
    (alone,) = surveyed(G16, SmoothQuant(), stored=Stored()).problems
    assert "no pairs of modules" in alone.what
    assert "a norm whose output only Linears and routers read" in alone.what


def test_pairs_that_are_yet_to_be_proven_are_told() -> None:
    found = surveyed(G16, SmoothQuant(), Gptq())
    assert not found.problems
    assert [note for note in found.notes if note.startswith("the pairs of modules between which")]
    assert not [n for n in surveyed(G16, Gptq()).notes if n.startswith("the pairs of modules")]


def test_a_graph_that_proves_no_pairs_has_no_transforms() -> None:
    site: Any = SimpleNamespace(facts={"model": blueprint(), "statistics": None})
    config = CompressConfig(scheme=G16, modifiers=(SmoothQuant(),))
    with pytest.raises(UserError, match="'smoothquant' moves factors") as error:
        Compress(config).survey(site)
    assert "pairs: {kind: pairs, inputs: {model: patch}}" in str(error.value)


def test_smoothing_without_a_solver_says_that_weights_are_rounded() -> None:
    told = surveyed(G16, SmoothQuant()).warnings
    assert [n for n in told if n.startswith("no solver is named: after smoothquant weights are")]
    assert not [n for n in surveyed(G16, SmoothQuant(), Rtn()).warnings if "no solver" in n]
    assert not [n for n in surveyed(G16).warnings if "no solver" in n]
