from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import StageFailed, UserError
from stages.load.local import LocalModel
from stages.load.stage import Load, LoadConfig
from stages.quantized.open import open_source
from tests.stages.load.conftest import View, write_model


def stage(path: Path, **more: bool) -> Load:
    return Load(LoadConfig(model=LocalModel(path=str(path), **more)))


def surveyed(path: Path, **more: bool) -> Load:
    made = stage(path, **more)
    survey = made.survey(View())
    assert not survey.problems
    return survey.settled


def test_small_files_are_copied_and_weights_are_not(folder: Path, load) -> None:
    result, _ = load(surveyed(folder))
    names = sorted(p.relative_to(result.path).as_posix() for p in result.path.rglob("*.*"))
    assert names == ["model/config.json", "model/tokenizer.json", "source.json"]
    assert (result.path / "model" / "LICENSE").exists()
    assert result.meta["architecture"] == "LlamaForCausalLM" and result.meta["bytes"] == 16


def test_custom_code_is_copied_only_when_trusted(folder: Path, load) -> None:
    result, _ = load(surveyed(folder, trust_remote_code=True))
    assert (result.path / "model" / "modeling_own.py").exists()


def test_code_that_a_config_names_is_copied_and_not_run(folder: Path, load) -> None:
    mark = folder.parent / "ran"
    (folder / "modeling_own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    own = {"auto_map": {"AutoModel": "modeling_own.Own", "AutoConfig": "acme/own--conf.Own"}}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | own))
    tokenizer = {"auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    survey = stage(folder).survey(View())
    copied, lacking = survey.warnings
    assert "modeling_own.py" in copied and "nothing here runs it" in copied
    assert "tokenization_own.py" in lacking and "conf.py" not in lacking
    result, _ = load(survey.settled)
    assert (result.path / "model" / "modeling_own.py").exists()
    assert not mark.exists()


def test_weights_are_read_through_the_result(folder: Path, load) -> None:
    result, _ = load(surveyed(folder))
    source = open_source(result)
    assert torch.equal(source.read(source.specs())["model.norm.weight"], torch.ones(4))


def test_the_key_follows_the_content_and_not_the_place(folder: Path) -> None:
    before = surveyed(folder).semantics(None)
    moved = folder.rename(folder.parent / "moved")
    assert surveyed(moved).semantics(None) == before
    write_model(moved, value=2.0)
    os.utime(moved / "model.safetensors")
    assert surveyed(moved).semantics(None) != before


def test_the_key_ignores_a_read_me(folder: Path) -> None:
    before = surveyed(folder).semantics(None)
    (folder / "README.md").write_text("another\n")
    assert surveyed(folder).semantics(None) == before


def test_a_stored_result_finds_its_weights_after_they_moved(folder: Path, load) -> None:
    result, _ = load(surveyed(folder))
    moved = folder.rename(folder.parent / "moved")
    with pytest.raises(UserError, match="is gone since it was loaded"):
        open_source(result)
    surveyed(moved)  # any run looks at the model first
    assert open_source(result).read(["model.norm.weight"])


def test_a_stored_result_refuses_weights_that_changed(folder: Path, load) -> None:
    result, _ = load(surveyed(folder))
    write_model(folder, value=3.0)
    os.utime(folder / "model.safetensors")
    with pytest.raises(UserError, match="has changed since it was loaded"):
        open_source(result)


def test_files_that_change_between_survey_and_run_are_an_error(folder: Path, load) -> None:
    made = surveyed(folder)
    write_model(folder, value=3.0)
    os.utime(folder / "model.safetensors")
    with pytest.raises(StageFailed, match="changed while"):
        load(made)


def test_all_problems_of_a_folder_are_told_at_once(folder: Path) -> None:
    (folder / "config.json").unlink()
    with open(folder / "model.safetensors", "r+b") as out:
        out.truncate(20)
    problems = stage(folder).survey(View(mode="plan")).problems
    assert len(problems) == 2
    assert "cut off" in str(problems[0]) and "config.json" in str(problems[1])


def test_a_missing_folder_is_one_problem(tmp_path: Path) -> None:
    (problem,) = stage(tmp_path / "gone").survey(View(mode="plan")).problems
    assert "no folder" in str(problem)


def test_a_model_quantized_by_an_unknown_method_is_refused(folder: Path) -> None:
    config = {"model_type": "llama", "quantization_config": {"quant_method": "aqlm"}}
    (folder / "config.json").write_text(json.dumps(config))
    (problem,) = stage(folder).survey(View()).problems
    assert "already quantized, by 'aqlm'" in str(problem)
    assert "compressed-tensors, fp8, awq, gptq, modelopt" in str(problem)


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "[" * 100_000])
def test_a_malformed_config_is_one_problem(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    (problem,) = stage(folder).survey(View()).problems
    assert "config.json" in str(problem)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors"])
def test_a_pipe_or_a_broken_link_is_not_taken_for_nothing(folder: Path, name: str) -> None:
    for put in (lambda path: os.mkfifo(path), lambda path: path.symlink_to("gone")):
        (folder / name).unlink()
        put(folder / name)
        problems = stage(folder).survey(View()).problems
        assert f"{name} is no plain file, or a link that leads nowhere" in str(problems[0])


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("tokenizer.json", '{"version": "1.0", "model": {"type": "No"}}', "ModelUntagged"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 99999999}}}', "token id 99999999"),
        ("tokenizer_config.json", "[" * 100_000, "is not JSON"),
    ],
)
def test_a_tokenizer_that_nobody_could_load_is_told_by_the_run_that_copies_it(
    folder: Path, load, name: str, content: str, why: str
) -> None:
    assert load(surveyed(folder))[1] == []
    (folder / name).write_text(content)
    result, warnings = load(surveyed(folder))
    assert len(warnings) == 1 and why in warnings[0]
    assert warnings[0].startswith("the model's tokenizer is broken, and is copied as it is: ")
    assert (result.path / "model" / name).read_text() == content


def test_a_small_file_that_links_out_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "vocab.json").symlink_to("/etc/hostname")
    (problem,) = stage(folder).survey(View()).problems
    assert "leads out of its folder" in str(problem)


def test_shards_with_an_index_are_read_through_the_result(folder: Path, load) -> None:
    (folder / "model.safetensors").unlink()
    for name in "ab":
        save_file({name: torch.ones(2)}, folder / f"{name}.safetensors")
    index = {"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    result, _ = load(surveyed(folder))
    assert sorted(open_source(result).specs()) == ["a", "b"]
    assert not list((result.path / "model").glob("*index*"))


def test_a_survey_imports_no_torch(folder: Path) -> None:
    program = (
        "import sys\n"
        "from stages.load.local import LocalModel\n"
        "from stages.load.stage import Load, LoadConfig\n"
        "class View:\n"
        "    mode = 'run'\n"
        "    def prepare(self): return None\n"
        "    def own(self, stage): return None\n"
        "made = Load(LoadConfig(model=LocalModel(path=sys.argv[1])))\n"
        "survey = made.survey(View())\n"
        "assert not survey.problems and survey.settled.semantics(None)\n"
        "print(sorted({'torch', 'transformers', 'compressed_tensors'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_folder_without_weights_is_planned_with_and_not_run(folder: Path) -> None:
    for weights in folder.glob("*.safetensors*"):
        weights.unlink()
    model = LocalModel(path=str(folder))
    planned = model.look(mode="plan")
    assert planned.problems == () and planned.facts.config is not None
    assert planned.facts.identity is None and planned.facts.tensors is None
    assert "which mode=run refuses" in planned.warnings[0]
    [problem] = model.look(mode="run").problems
    assert "has no weights" in problem.what


def test_weights_that_are_there_but_cannot_be_read_are_a_problem_of_a_plan(folder: Path) -> None:
    for weights in folder.glob("*.safetensors*"):
        weights.rename(weights.with_suffix(".bin"))
    [problem] = LocalModel(path=str(folder)).look(mode="plan").problems
    assert "pickle" in problem.what
