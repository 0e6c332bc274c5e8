"""Options of `spinquant`, its place among modifiers, and the model that it must be given."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.errors import StageFailed, UserError
from pipeline.registry import Registry
from stages.compress.compress_outside import CompressOutside
from stages.compress.config import CompressConfig
from stages.compress.modifiers import (
    AutoRound,
    Gptaq,
    Gptq,
    Rtn,
    SmoothQuant,
    SparseGpt,
    SpinQuant,
)
from stages.compress.modifiers.rtn_route import only_rounds
from stages.compress.stage import Compress
from stages.compute.rotation_steps import RotatedTensors
from stages.patch.rotate import Rotate, RotateConfig
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeConfig
from tests.pipeline.tiny import composed
from tests.stages.formats.fakes import blueprint

G16 = SchemeConfig(weights=QArgs(num_bits=4, strategy="group", group_size=16))
GIVEN = ("model=llama3_8b", "mode=plan")
UNROTATED = ("unrotated", "unrotated_outside")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rotations": ["R1", "R4"]}, "R4 is computed while the model runs"),
        ({"rotations": ["R5"]}, "rotations is"),
        ({"rotations": []}, "rotations is"),
        ({"rotations": ["R1", "R1"]}, "rotations is"),
        ({"transform_type": "dct"}, "transform_type is 'dct'"),
        ({"block_size": 1}, "block_size is 1"),
        ({"block_size": 64, "rotations": ["R2"]}, "R2 alone has no blocks"),
        ({"transform_type": "hadamard", "seed": 3}, "draws nothing"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        SpinQuant(**options)


def test_it_comes_first_and_once() -> None:
    CompressConfig(scheme=G16, modifiers=(SpinQuant(), SmoothQuant(), Gptq()))
    with pytest.raises(UserError, match="'spinquant' comes after 'smoothquant'"):
        CompressConfig(scheme=G16, modifiers=(SmoothQuant(), SpinQuant(), Gptq()))
    with pytest.raises(UserError, match="there are 2 rotations"):
        CompressConfig(scheme=G16, modifiers=(SpinQuant(), SpinQuant()))
    assert only_rounds((Rtn(),), "cpu") and not only_rounds((SpinQuant(), Rtn()), "cpu")


def surveyed(rotated: RotatedTensors | None, *modifiers: Any) -> Any:
    facts = {"model": replace(blueprint(), rotation=rotated), "statistics": None, "pairs": None}
    site: Any = SimpleNamespace(facts=facts, artifact=lambda name: None)
    return Compress(CompressConfig(scheme=G16, modifiers=modifiers)).survey(site)


def test_a_model_that_is_read_otherwise_than_the_modifier_says() -> None:
    asked = RotatedTensors(asked=SpinQuant().rotation.asked())
    assert not surveyed(asked, SpinQuant(), Gptq()).problems
    assert not surveyed(None, Gptq()).problems
    (unread,) = surveyed(None, SpinQuant(), Gptq()).problems
    assert "'spinquant' rotates the model, and this graph reads it as it is" in unread.what
    (unsaid,) = surveyed(asked, Gptq()).problems
    assert "the model is rotated, and no modifier says so" in unsaid.what
    (other,) = surveyed(asked, SpinQuant(seed=1), Gptq()).problems
    assert "reads it as it is" in other.what
    (told,) = [n for n in surveyed(asked, SpinQuant()).warnings if n.startswith("no solver")]
    assert "modifier=[spinquant,gptq]" in told


@pytest.mark.parametrize("stage", [Compress, CompressOutside])
def test_which_gram_matrices_are_asked_for(stage: type[Compress] | type[CompressOutside]) -> None:
    """Where they can be derived both are, until it is known of what model they were gathered."""

    def asked(*modifiers: Any, **more: Any) -> tuple[Any, Any]:
        scheme = replace(G16, **more)
        found = stage(CompressConfig(scheme=scheme, modifiers=modifiers)).demands()
        return found["statistics"], found["unrotated"]

    gram = ("gram",)
    assert asked(SpinQuant(), Gptq()) == (gram, gram)
    assert asked(Gptq()) == (gram, ())
    assert asked(SpinQuant(), AutoRound())[1] == ()
    assert asked(SpinQuant(), Gptaq())[1] == ()
    assert asked(SpinQuant(), SmoothQuant(), Gptq())[1] == ()
    assert asked(SpinQuant(), SparseGpt(sparsity_profile="owl"), Gptq())[1] == ()
    cache = QArgs(num_bits=8, type="float", strategy="tensor")
    assert asked(SpinQuant(), Gptq(), kv_cache=cache)[1] == ()


def sites(*words: str) -> Any:
    cfg = composed(own_configs(), *GIVEN, *words, name="config")
    return load_config(cfg, Registry.load(), overrides=words).graph.sites


def test_the_modifier_wires_the_graph() -> None:
    rotated = sites("modifier=[spinquant,gptq]")
    plain = sites("modifier=[gptq]")
    reading = {name for name, site in plain.items() if site.inputs.get("source") == "load"}
    reading -= {"patch", "tokens", "eval_tokens", "hidden_original", "hidden_compressed", "eval"}
    for name in reading - {"generate", *UNROTATED}:
        assert rotated[name].inputs["model"] == "rotate" and plain[name].inputs["model"] == "patch"
    for name in UNROTATED:  # whose Gram matrices the others may use
        assert rotated[name].inputs["model"] == plain[name].inputs["model"] == "patch"
    whole = sites("modifier=[spinquant,gptq]", "scheme=auto")
    assert {whole[name].inputs["model"] for name in ("measure", "gradient", "choose")} == {"rotate"}


def test_the_node_rotates_as_a_modifier_says_or_not_at_all() -> None:
    one, other = (
        Rotate(RotateConfig(modifiers=(SpinQuant(), solver))) for solver in (Gptq(), Rtn())
    )
    assert one.semantics(None) == other.semantics(None)
    others = ({"rotations": ["R2"]}, {"transform_type": "hadamard"}, {"block_size": 8}, {"seed": 1})
    asked = [Rotate(RotateConfig(modifiers=(SpinQuant(**x),))).semantics(None) for x in others]
    asked.append(Rotate(RotateConfig(modifiers=(SpinQuant(),), threads=2)).semantics(None))
    assert len({str(key) for key in (one.semantics(None), *asked)}) == 6
    site: Any = SimpleNamespace(facts={"model": blueprint()}, artifact=lambda name: None)
    found = Rotate(RotateConfig(modifiers=(SpinQuant(),))).survey(site)
    assert found.facts.rotation.asked == SpinQuant().rotation.asked() and found.notes
    (missing,) = Rotate(RotateConfig(modifiers=(SpinQuant(block_size=7),))).survey(site).problems
    assert "block_size is 7" in missing.what
    unasked = Rotate(RotateConfig(modifiers=(Gptq(),)))
    assert unasked.survey(site).facts.rotation == RotatedTensors()
    task: Any = SimpleNamespace(node_name="rotate")
    with pytest.raises(StageFailed, match="no modifier says how"):
        unasked.run(task)
