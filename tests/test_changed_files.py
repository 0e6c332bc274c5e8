"""Files of a model or a dataset that change during a run: one error, and nothing wrong is kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StageFailed, UserError
from pipeline.runner.node_builder import NodeBuilder
from pipeline.store import Store, StoreConfig
from stages.load import model_folder
from stages.tokens import run as tokenizing
from stages.tokens.stage import Tokens
from tests.benchmarks.random_llama import TINY, write_model
from tests.jobs import Job
from tests.test_data_free import Disk, disk

At = Callable[[str, Callable[[], None]], None]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a copy that another test has hashed would be found by its content."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> At:
    """`at(node, work)`: do some work once, when that node is built."""

    def register(node: str, work: Callable[[], None]) -> None:
        run_stage, left = NodeBuilder._run_stage, [work]

        def disturbed(runner: NodeBuilder, graph: Any, current: Any, *rest: Any) -> Any:
            made = run_stage(runner, graph, current, *rest)
            if current.name == node and left:
                left.pop()()
            return made

        monkeypatch.setattr(NodeBuilder, "_run_stage", disturbed)

    return register


@pytest.fixture
def job(tmp_path: Path, tiny_llama: Path) -> Disk:
    """A model of its own, in files that it shares with nobody."""
    return disk(tmp_path, shutil.copytree(tiny_llama, tmp_path / "model"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> dict[str, str]:
    """The files of a checkpoint that nothing has disturbed."""
    job = disk(tmp_path_factory.mktemp("undisturbed"), tiny_llama)
    job.run("run", "scheme=w4a16")
    return job.checkpoint("run")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return write_model(tmp_path / "other", TINY, seed=1)


def store_of(job: Job) -> Store:
    return Store(StoreConfig(dir=str(job.folder / "store")))


def weights(model: Path) -> list[Path]:
    return sorted(model.glob("*.safetensors"))


def swap(model: Path, other: Path) -> None:
    """Put another model's weights in place of a model's, which go beside it."""
    for file in weights(model):
        times = file.stat()
        file.rename(model.parent / f"kept-{file.name}")
        shutil.copyfile(other / file.name, file)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def restore(model: Path) -> None:
    for file in weights(model):
        (model.parent / f"kept-{file.name}").replace(file)


def overwrite(model: Path, other: Path) -> None:
    """The same in place: no other inode, and the times of before."""
    for file in weights(model):
        times = file.stat()
        shutil.copyfile(file, model.parent / f"kept-{file.name}")
        file.write_bytes((other / file.name).read_bytes())
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(("node", "change"), [("load", overwrite), ("compress[1]", swap)])
def test_a_model_that_changes_during_a_run_leaves_nothing_wrong(
    job: Disk,
    other: Path,
    at: At,
    undisturbed: dict[str, str],
    node: str,
    change: Callable[[Path, Path], None],
) -> None:
    at(node, lambda: change(job.model, other))
    with pytest.raises(UserError, match=r"model-layer-00.* (has )?changed") as caught:
        job.run("run", "scheme=w4a16")
    assert "put it back" in caught.value.remedy
    restore(job.model)
    result = job.run("run", "scheme=w4a16")
    assert result["status"] == "ok"
    assert job.checkpoint("run") == undisturbed


def test_a_model_that_is_copied_back_during_a_run_is_read_on(
    job: Disk, other: Path, at: At
) -> None:
    def aside_and_back() -> None:
        overwrite(job.model, other)
        for file in weights(job.model):
            shutil.copyfile(job.model.parent / f"kept-{file.name}", file)

    at("compress[1]", aside_and_back)
    assert job.run("run", "scheme=w4a16", "runner.workers=1")["status"] == "ok"


def test_a_model_whose_small_files_change_while_it_is_loaded_is_not_stored(
    job: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """config.json, the tokenizer, code files: they are read and copied by their paths."""
    check = model_folder.check_finite

    def disturbed(*given: Any, **named: Any) -> None:
        check(*given, **named)
        config = json.loads((job.model / "config.json").read_text())
        (job.model / "config.json").write_text(json.dumps({**config, "rope_theta": 7.0}))

    monkeypatch.setattr(model_folder, "check_finite", disturbed)
    with pytest.raises(StageFailed, match=r"load: .*config\.json changed while it was in use"):
        job.run("run", "scheme=w4a16")
    assert not [*store_of(job).entries()]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_dataset_that_changes_before_or_while_it_is_read_is_not_stored(
    tmp_path: Path,
    tiny_llama: Path,
    some_text: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    text = shutil.copyfile(some_text, tmp_path / "text.txt")
    job = Job(folder=tmp_path, model=tiny_llama, text=text)

    def change() -> None:
        times = text.stat()
        text.write_text(text.read_text()[::-1])
        os.utime(text, ns=(times.st_atime_ns, times.st_mtime_ns))

    if when == "before":
        start = Tokens.run

        def changed(stage: Tokens, task: Any) -> None:
            change()
            start(stage, task)

        monkeypatch.setattr(Tokens, "run", changed)
    else:
        tokenise = tokenizing.tokenise

        def disturbed(*given: Any) -> Any:
            made = tokenise(*given)
            change()
            return made

        monkeypatch.setattr(tokenizing, "tokenise", disturbed)
    with pytest.raises(StageFailed, match=r"tokens: .*text\.txt.* (has )?changed"):
        job.run("run")
    assert "tokens" not in {entry.kind for entry in store_of(job).entries()}
