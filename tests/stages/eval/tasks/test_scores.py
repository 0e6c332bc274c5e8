"""Scores of a tiny model: by transformers here, and by the protocol of another interpreter."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.errors import StageFailed, UserError
from stages.eval.tasks import outside
from stages.eval.tasks.config import ScoresConfig, VllmConfig
from stages.eval.tasks.stage import Scores
from stages.eval.tasks.task_files import harness_names, own_tasks, unknown
from tests.stages.eval.chain import Chain, chain, compressed_checkpoint
from tests.stages.eval.tasks.standin import interpreter, own_task, package
from tests.stages.model.site import FakeSite
from tests.stages.tokens.fakes import byte_tokenizer

REAL = find_spec("lm_eval") is not None and find_spec("accelerate") is not None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A tiny model and its checkpoint, for all tests here."""
    found = chain(tmp_path_factory.mktemp("chain"))
    found.inputs["saved"] = compressed_checkpoint(found, found.folder / "save", "W8A8")
    return found


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package in the place of the harness, installed or not."""

    def apart() -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]
        return {name: sys.modules.pop(name) for name in names}

    before = apart()
    monkeypatch.syspath_prepend(str(package(tmp_path)))
    yield
    apart()
    sys.modules.update(before)


@pytest.mark.usefixtures("stand_in")
def test_transformers_computes_in_this_process(made: Chain) -> None:
    stage = Scores(ScoresConfig(tasks=["arc_easy"]))
    state = torch.get_rng_state()
    folders = {"before": made.model.path, "after": made.inputs["saved"].path / "checkpoint"}
    for name, path in folders.items():
        inputs = {"checkpoint": made.inputs["saved"]} if name == "after" else {}
        found = made.run(stage, name, **inputs).json("scores.json")["arc_easy"]
        rows = torch.tensor([[5, 6, 7], [8, 9, 10]])
        model = AutoModelForCausalLM.from_pretrained(path).eval()
        with torch.no_grad():
            said = model(rows).logits.float().log_softmax(-1)
        expected = [float(said[i, 1, row[2]]) for i, row in enumerate(rows)]
        assert found["metrics"]["acc"]["each"] == pytest.approx(expected, abs=1e-5)
        assert (found["samples"], found["shots"], found["documents"]) == (2, 0, None)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not REAL, reason="needs the extra lm-eval, which no test environment has")
def test_the_harness_itself_asks_a_task_of_ones_own(made: Chain, tmp_path: Path) -> None:
    folder = own_task(tmp_path / "own")
    stage = Scores(ScoresConfig(tasks=["mine_easy"], include_path=str(folder), batch_size=2))
    found = made.run(stage, "real", checkpoint=made.inputs["saved"]).json("scores.json")
    task = found["mine_easy"]
    assert task["samples"] == 6 and len(task["metrics"]["acc"]["each"]) == 6
    assert len(task["documents"]) == 64
    model = AutoModelForCausalLM.from_pretrained(made.inputs["saved"].path / "checkpoint").eval()
    rows = [json.loads(line) for line in (tmp_path / "mine_easy.jsonl").read_text().splitlines()]
    assert task["metrics"]["acc"]["each"] == [float(chosen(model, r) == r["gold"]) for r in rows]


def chosen(model: Any, row: Any) -> int:
    """The likeliest choice, a token a byte as the tiny model's tokenizer has them."""

    def likelihood(choice: str) -> float:
        first = byte_tokenizer()(row["query"]).input_ids
        ids = torch.tensor([first + byte_tokenizer()(f" {choice}").input_ids])
        with torch.no_grad():
            said = model(ids).logits[0].float().log_softmax(-1)
        return float(sum(said[i - 1, ids[0, i]] for i in range(len(first), ids.shape[1])))

    told = [likelihood(choice) for choice in row["choices"]]
    return told.index(max(told))


def test_another_interpreter_is_asked_with_links_to_the_original(
    made: Chain, tmp_path: Path
) -> None:
    scores = {"mine_easy": {"metrics": {"acc": {"value": 0.5}}}}
    python = interpreter(tmp_path / "env", scores)
    vllm = VllmConfig(python=str(python), options={"dtype": "bfloat16"})
    own = str(own_task(tmp_path / "own"))
    stage = Scores(ScoresConfig(tasks=["mine_easy"], include_path=own, limit=3, vllm=vllm))
    assert made.run(stage, "vllm").json("scores.json") == scores
    asked = json.loads((tmp_path / "env" / "request.json").read_text())
    folder = Path(asked["model_args"].pop("pretrained"))
    assert asked["model_args"] == {"dtype": "bfloat16"}
    assert (asked["tasks"], asked["limit"], asked["defaults"]) == (["mine_easy"], 3, False)
    original = made.model.path / "model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == original.read_bytes()
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 272
    made.run(stage, "vllm_saved", checkpoint=made.inputs["saved"])
    asked = json.loads((tmp_path / "env" / "request.json").read_text())
    saved = made.inputs["saved"].path / "checkpoint"
    assert asked["model_args"]["pretrained"] == str(saved)


def test_an_engine_that_fails_is_quoted(made: Chain, tmp_path: Path) -> None:
    python = str(interpreter(tmp_path / "env", None))
    stage = Scores(ScoresConfig(tasks=["arc_easy"], vllm=VllmConfig(python=python)))
    with pytest.raises(StageFailed, match=r"left with 3 in .*\n.*no memory for the cache"):
        made.run(stage, "failing")


def surveyed(tmp_path: Path, *tasks: str, **more: Any) -> Any:
    python = str(interpreter(tmp_path / "env", {}))
    config = ScoresConfig(tasks=list(tasks), vllm=VllmConfig(python=python), **more)
    return Scores(config).survey(FakeSite())


def test_keys_have_the_content_of_tasks_and_the_versions(tmp_path: Path) -> None:
    folder = own_task(tmp_path / "own")

    def key() -> Any:
        found = surveyed(tmp_path, "mine_easy", include_path=str(folder))
        return found.settled.semantics(None)

    first = key()
    assert first["engine"] == {"lm-eval": "0.4.13", "vllm": "0.32.0"}
    assert set(first["own"]["files"]) == {"task.yaml", "helpers.py"} and len(first["own"]["data"])
    assert "python" not in first["vllm"] and "include_path" not in first
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "helpers.pyc").write_bytes(b"x")
    assert key() == first
    data = tmp_path / "mine_easy.jsonl"
    data.write_text(data.read_text().replace("cat", "cow"))
    second = key()
    assert second["own"]["data"] != first["own"]["data"]
    (folder / "helpers.py").write_text("def same(documents):\n    return documents[:1]\n")
    assert key()["own"]["files"] != second["own"]["files"]


@pytest.mark.parametrize(
    ("tasks", "more", "told"),
    [
        (["arc_eazy"], {}, r"arc_eazy: no such task in the harness.*did you mean arc_easy"),
        (["arc_easy", "ai2_arc"], {}, ""),
        (["mine_easy", "mine", "arc_easy"], {"include_path": "own"}, ""),
        (["other"], {"include_path": "own"}, "nor in eval.include_path=own"),
        (["arc_easy"], {"include_path": "nowhere"}, "include_path=nowhere is no folder"),
    ],
)
def test_a_plan_knows_the_names_of_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: list[str], more: Any, told: str
) -> None:
    own_task(tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    problems = surveyed(tmp_path, *tasks, **more).problems
    if not told:
        assert problems == ()
        return
    (problem,) = problems
    with pytest.raises(UserError, match=f"(?s){told}"):
        raise problem


def test_what_an_interpreter_lacks_is_said_with_the_command(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "env", {}, {"lm-eval": None, "vllm": "0.32.0"})
    with pytest.raises(UserError, match=r"has no lm-eval\n.*python -m pip install lm-eval"):
        outside.look(str(python))
    with pytest.raises(UserError, match="is no program"):
        outside.look(str(tmp_path / "none"))
    with pytest.raises(UserError, match="cannot say which libraries it has: it left with 1"):
        outside.look("/bin/false")


@pytest.mark.skipif(REAL, reason="the extra lm-eval is installed")
def test_a_missing_extra_is_told_with_the_command() -> None:
    (problem,) = Scores(ScoresConfig(tasks=["arc_easy"])).survey(FakeSite()).problems
    assert "not installed here: lm-eval" in problem.what
    assert problem.remedy == "pip install 'presswork[lm-eval]'"


def test_names_are_found_without_parsing(tmp_path: Path) -> None:
    folder = str(package(tmp_path) / "lm_eval" / "tasks")
    assert harness_names(folder) == {"arc_easy", "ai2_arc"}
    assert unknown(["arc_easy", "ai2_arc", "arc"], folder) == ("arc",)
    own = own_tasks(str(own_task(tmp_path / "own")))
    assert own.names == {"mine_easy", "mine"} and not own.groups


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tasks": []}, "tasks is empty"),
        ({"tasks": ["a", "a"]}, "tasks has a twice"),
        ({"tasks": ["a"], "limit": 0}, "limit is 0"),
        ({"tasks": ["a"], "num_fewshot": -1}, "num_fewshot is -1"),
    ],
)
def test_a_config_is_checked(given: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        ScoresConfig(**given)
    with pytest.raises(UserError, match="options has model, which presswork gives itself"):
        VllmConfig(options={"model": "x"})
