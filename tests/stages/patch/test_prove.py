"""The stage prove: its key is that of the structure, and stages that replay need it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.stage import Stage
from stages.calibrate.cache import Cache, CacheConfig
from stages.calibrate.calibrate_outside import CalibrateOutside
from stages.calibrate.config import LayerConfig
from stages.calibrate.gradient import Gradient
from stages.calibrate.gradient_outside import EndingConfig, GradientOutside
from stages.calibrate.propagate import Propagate
from stages.calibrate.stage import Calibrate
from stages.eval.hidden import Hidden, HiddenConfig
from stages.patch.by_structure import NoOptions
from stages.patch.prove import Prove
from tests.stages.calibrate.fakes import FakeArtifact, Worker
from tests.stages.model.site import FakeSite
from tests.stages.model.tiny import tiny


def settled(config: dict[str, Any], blueprint: Any) -> Stage:
    site = FakeSite(facts={"model": replace(blueprint, config=config)}, mode="plan")
    survey = Prove(NoOptions()).survey(site)  # type: ignore[arg-type]
    assert survey.settled is not None
    return survey.settled


def test_fine_tunes_share_a_proof_and_other_structures_do_not(tmp_path: Path) -> None:
    model = tiny("qwen3", tmp_path)
    blueprint, config = model.blueprint(), model.config
    key = settled(config, blueprint).semantics(None)
    tuned = {**config, "_name_or_path": "elsewhere", "dtype": "bfloat16", "eos_token_id": [3, 4]}
    assert settled(tuned, blueprint).semantics(None) == key
    assert settled({**config, "num_hidden_layers": 5}, blueprint).semantics(None) != key
    assert settled({**config, "hidden_act": "gelu"}, blueprint).semantics(None) != key


def test_it_depends_on_no_weights() -> None:
    assert Prove(NoOptions()).consults() == {"source", "model"}


def test_the_proof_is_written(tmp_path: Path) -> None:
    model = tiny("llama", tmp_path / "model")
    task = Worker(root=tmp_path).task("prove", {}, {"out": "prove"})
    settled(model.config, model.blueprint()).run(task)
    proof = json.loads((tmp_path / "prove" / "proof.json").read_text())
    assert proof["replay"]["equal"] == "bits"
    assert proof["replay"]["layers"] == ["LlamaDecoderLayer"] * 3
    assert proof["experts"] == {}
    stored = FakeArtifact(path=tmp_path / "prove")
    for own, facts in ((None, None), (stored, proof)):
        site = FakeSite(facts={"model": model.blueprint()}, stored=own, mode="plan")
        assert Prove(NoOptions()).survey(site).facts == facts  # type: ignore[arg-type]


def test_every_stage_that_replays_asks_for_a_proof() -> None:
    stages: list[Stage] = [
        *(kind(LayerConfig()) for kind in (Calibrate, CalibrateOutside, Gradient)),
        *(kind(CacheConfig()) for kind in (Cache, Propagate)),
        GradientOutside(EndingConfig()),
        Hidden(HiddenConfig()),
    ]
    for stage in stages:
        (problem,) = stage.survey(FakeSite(name="mine")).problems  # type: ignore[arg-type]
        assert "nothing in its graph proves" in problem.what
        assert "prove: {kind: prove, inputs: {model: patch}}" in problem.remedy
        assert "proof: prove" in problem.remedy


def test_a_plan_imports_no_torch() -> None:
    code = """
import sys
from stages.patch.by_structure import NoOptions
from stages.patch.prove import Prove
class Site:
    facts = {"model": None}
survey = Prove(NoOptions()).survey(Site())
survey.settled.semantics(None)
assert not {"torch", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
