"""The stage patch: members and facts from the store, the weights, or the config alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.model import Blueprint
from stages.patch.stage import Patch, PatchConfig
from tests.stages.calibrate.fakes import Worker, load_result, patch_result
from tests.stages.model.site import Facts, FakeSite
from tests.stages.model.tiny import tiny


def test_a_run_lists_the_layers_and_writes_the_blueprint(tmp_path: Path) -> None:
    model = tiny("llama", tmp_path / "model")
    source = load_result(model, tmp_path / "load")
    stage = Patch(PatchConfig())
    survey = stage.survey(FakeSite(source=source))
    task = Worker(root=tmp_path).task("patch", {"source": source}, {"out": "patch"})
    stage.run(task)
    written = Blueprint.load(task.outputs["out"])  # type: ignore[arg-type]
    assert survey.facts == written == model.blueprint()
    assert survey.members == tuple(f"model.layers.{index}" for index in range(4))


def test_a_plan_needs_the_config_only(tmp_path: Path) -> None:
    model = tiny("qwen3", tmp_path / "model")
    site = FakeSite(facts={"source": Facts(config=model.config)}, mode="plan")
    assert Patch(PatchConfig()).survey(site).facts == model.blueprint()
    empty = FakeSite(facts={"source": Facts(config=None)}, mode="plan")
    assert Patch(PatchConfig()).survey(empty).members == ()


def test_a_model_that_does_not_fit_is_a_problem_not_an_exception() -> None:
    site = FakeSite(facts={"source": Facts(config={"model_type": "lama"})}, mode="plan")
    (problem,) = Patch(PatchConfig()).survey(site).problems
    assert "did you mean llama" in str(problem)


def test_unknown_expert_modes_are_refused() -> None:
    with pytest.raises(UserError, match="choose one of all, routed"):
        PatchConfig(experts="some")


def test_surveys_of_stored_results_import_no_torch(tmp_path: Path) -> None:
    stored = patch_result(tiny("llama", tmp_path / "model").blueprint(), tmp_path / "patch")
    code = f"""
import json, sys
from pathlib import Path
from stages.patch.stage import Patch, PatchConfig
from stages.calibrate.stage import Calibrate
from stages.calibrate.propagate import Propagate
from stages.calibrate.config import LayerConfig

class Stored:
    def json(self, name):
        return json.loads(Path({str(stored.path)!r}, name).read_text())

class Site:
    facts = {{}}
    def prepare(self) -> None: ...

    def own(self):
        return Stored()

survey = Patch(PatchConfig()).survey(Site())
assert len(survey.members) == 4
tokens = {{"samples": 4, "sequence_length": 8}}
Site.facts = {{"proof": None, "model": survey.facts, "tokens": tokens}}
for stage in (Calibrate, Propagate):
    assert len(stage(LayerConfig()).survey(Site()).estimates) == 4
assert not {{"torch", "transformers", "compressed_tensors", "safetensors"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
