"""What the command answers: names of this project's configs, remembered until they change."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.completion import collect
from pipeline.completion.command import answer, completed, is_asked
from pipeline.completion.names import MOST, known, remember


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "presswork" / "completion"


def test_names_of_the_project() -> None:
    assert completed(["scheme=w4a16_g"]) == ["scheme=w4a16_g64"]
    assert completed(["scheme.weights.group_s"]) == ["scheme.weights.group_size="]
    assert completed(["+experiment=int4"]) == ["+experiment=int4_fp8"]
    assert completed(["--multi"]) == ["--multirun"]


def test_values_of_keys() -> None:
    with collect.loader_for([]) as (loader, given):
        config = collect.composed(loader, given, {})
    for key, expected in {
        "scheme.weights.strategy": "tensor channel group block tensor_group token attn_head",
        "save.compressed": "true false",
        "verify.unpack": "all codes null",
        "device": "auto cpu cuda cuda:0",
        "model.dtype": "bfloat16 float16 float32",
        "model.kind": "gguf hub local wheel",
        "calibrate.batch_size": "4",
        "model.config.rms_norm_eps": "1e-05",
        "graph.nodes.load.kind": "load",
        "hydra.verbose": "true false",
        "objective": "null",
        "dataset.nothing": "",
        "no.such.key": "",
    }.items():
        assert collect.allowed(tuple(key.split(".")), config)[0] == expected.split(), key
    assert "doctor" in collect.allowed(("mode",), config)[0]


def test_choices_before_it_decide(tmp_path: Path) -> None:
    path = f"dataset.path={tmp_path}"
    # what does not compose leaves the names of its choices
    assert completed(["dataset=text", "nonsense=1", "dataset.pat"]) == ["dataset.path="]
    assert completed(["dataset=text", "nonsense=1", path]) == [f"{path}/"]


def test_a_second_answer_composes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = completed(["eval."])
    value = completed(["calibrate.experts="])
    monkeypatch.setattr(collect, "names_of", None)
    monkeypatch.setattr(collect, "values_of", None)
    assert completed(["eval."]) == before
    assert completed(["eval.batch_size=8", "store.dir=x", "eval."]) == before
    assert (
        completed(["calibrate.experts="])
        == value
        == [
            "calibrate.experts=all",
            "calibrate.experts=routed",
        ]
    )


def test_a_changed_folder_is_seen(tmp_path: Path) -> None:
    group = tmp_path / "conf" / "scheme"
    group.mkdir(parents=True)
    (group / "house.yaml").write_text("weights: null\n")
    asked = ["--config-dir", str(tmp_path / "conf"), "scheme=hou"]
    assert completed(asked) == completed(asked) == ["scheme=house"]
    (group / "house_b.yaml").write_text("weights: null\n")
    assert completed(asked) == ["scheme=house", "scheme=house_b"]


def test_a_broken_file_of_the_cache_is_no_answer(cache: Path) -> None:
    words = ["a=broken"]
    remember(words, {"groups": {}}, [])
    assert known(words) == {"groups": {}}
    newest = max(cache.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for text in ("{", "[]", '{"stamps": 1}', '{"stamps": [], "names": 3}', '{"stamps": [[]]}'):
        newest.write_text(text)
        assert known(words) is None
    for number in range(MOST + 3):
        remember([f"a={number}"], {}, [])
    assert len(list(cache.iterdir())) == MOST


def test_answers_of_the_cache_import_no_hydra() -> None:
    completed(["scheme=w4a16_g"])
    code = (
        "import sys; from pipeline.completion.command import answer\n"
        "answer(['-sc', 'query=bash'])\n"
        "print(*{'hydra', 'omegaconf', 'yaml', 'rich', 'dataclasses'} & set(sys.modules))"
    )
    line = "presswork scheme=w4a16_g and more"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "COMP_LINE": line, "COMP_POINT": str(len("presswork scheme=w4a16_g"))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["scheme=w4a16_g64"], done.stdout


def test_scripts_and_shells(capsys: pytest.CaptureFixture[str]) -> None:
    assert is_asked(["-sc", "query=bash"]) and is_asked(["--shell-completion", "install=zsh"])
    assert not is_asked(["-sc"]) and not is_asked(["query=bash"])
    for shell in ("bash", "zsh", "fish"):
        assert answer(["-sc", f"install={shell}"]) == 0
        assert "presswork" in capsys.readouterr().out
        assert answer(["-sc", f"uninstall={shell}"]) == 0
    assert answer(["-sc", "install=tcsh"]) == 1
    assert "bash, zsh or fish" in capsys.readouterr().err
