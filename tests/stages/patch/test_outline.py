"""The stage outline: from store, weights, a plan's headers, or what transformers expects."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.model import Blueprint
from stages.model.blueprint_from_names import outline_of
from stages.patch.outline import WHY, Outline, OutlineConfig
from tests.stages.calibrate.fakes import Worker, load_result, patch_result
from tests.stages.model.site import Facts, FakeSite
from tests.stages.model.tiny import Tiny, tiny


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny("llama", tmp_path_factory.mktemp("llama"))


def outline(model: Tiny) -> Blueprint:
    return outline_of(model.config, model.source.specs(), why=WHY)


def test_a_run_lists_the_units_and_writes_the_blueprint(llama: Tiny, tmp_path: Path) -> None:
    source = load_result(llama, tmp_path / "load")
    stage = Outline(OutlineConfig())
    survey = stage.survey(FakeSite(source=source))
    task = Worker(root=tmp_path).task("outline", {"source": source}, {"out": "outline"})
    stage.run(task)
    written = Blueprint.load(task.outputs["out"])  # type: ignore[arg-type]
    assert survey.facts == written == outline(llama)
    assert survey.members == tuple(f"model.layers.{index}" for index in range(4))


def test_a_stored_outline_is_read_and_its_notes_are_told_again(llama: Tiny, tmp_path: Path) -> None:
    noted = Blueprint.from_json({**outline(llama).to_json(), "notes": ["look here"]})
    survey = Outline(OutlineConfig()).survey(FakeSite(stored=patch_result(noted, tmp_path / "o")))
    assert (survey.facts, survey.warnings) == (noted, ("look here",))


def test_a_plan_takes_the_headers_or_what_transformers_would_save(llama: Tiny) -> None:
    stage = Outline(OutlineConfig())
    for tensors in (llama.source.specs(), None):
        facts = {"source": Facts(config=llama.config, tensors=tensors)}
        assert stage.survey(FakeSite(facts=facts, mode="plan")).facts == outline(llama)
    nothing = FakeSite(facts={"source": Facts(config=None)}, mode="plan")
    assert stage.survey(nothing).members == ()


def test_a_plan_without_headers_of_an_unknown_model_says_what_to_do() -> None:
    site = FakeSite(facts={"source": Facts(config={"model_type": "oddity"})}, mode="plan")
    (problem,) = Outline(OutlineConfig()).survey(site).problems
    assert "'oddity'" in str(problem) and "model=local" in str(problem)
