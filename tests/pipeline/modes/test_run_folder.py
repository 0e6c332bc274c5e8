"""Run folders and stores that others use, fill or remove during a run: one clear error."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from pipeline.config.root import Config
from pipeline.errors import StageFailed, UserError
from pipeline.logs import logging_to
from pipeline.modes.run import run
from pipeline.report.text_files import write_text
from pipeline.runs.occupied import alone_in
from pipeline.stage import Task
from tests.pipeline.tiny import ENTRIES, FILES, Make, Use, loaded, write_files


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    return loaded(write_files(tmp_path / "conf", FILES), "mode=run")


def no_space(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_is_alive(
    tmp_path: Path,
) -> None:
    refused = pytest.raises(UserError, match=r"another run is at work in .*\n.*hydra\.run\.dir")
    with alone_in(tmp_path), refused, alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        pass
    with pytest.raises(UserError, match="its folder is gone"), alone_in(tmp_path / "nowhere"):
        pass


def test_a_disk_that_is_full_while_publishing_is_told_and_recorded(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "copyfile", no_space)
    with pytest.raises(UserError, match=r"no space left on the disk of the folder .*/run") as told:
        run(config, tmp_path / "run")
    assert "hydra.run.dir" in str(told.value) and "store.dir" not in str(told.value)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["status"] == "failed" and "no space left" in result["error"]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert run(config, tmp_path / "run") == 0
    assert (tmp_path / "run/used/used.json").is_file()


def test_the_first_error_is_told_where_no_report_can_be_written_either(
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(task: Task) -> None:
        del task
        monkeypatch.setattr(Path, "replace", no_space)
        raise UserError("the first error")

    monkeypatch.setattr(Make, "run", lambda self, task: fail(task))
    with pytest.raises(UserError, match="the first error"):
        run(config, tmp_path / "run")
    assert "result.json cannot be written: its disk is full" in capsys.readouterr().err


def test_a_store_that_is_removed_during_a_run_is_told(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove(self: Make, task: Task) -> None:
        task.outputs["out"].write_json("words.json", ["word"])
        shutil.rmtree(config.store.dir)

    monkeypatch.setattr(Make, "run", remove)
    with pytest.raises(UserError, match=r"(?s)is gone: .*removed from the store.*mode=gc"):
        run(config, tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert run(config, tmp_path / "run") == 0


def test_a_result_without_the_folder_to_publish_is_told(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "conf", FILES)
    config = loaded(folder, "mode=run", "graph.nodes.use.publish=other")
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"graph\.nodes\.use\.publish is 'other'.*\n.*has used"):
        run(config, tmp_path / "run")


def test_files_of_a_run_folder_leave_no_part_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(UserError, match=r"a\.json cannot be written: its disk is full"):
        write_text(tmp_path / "a.json", "{}")
    assert list(tmp_path.iterdir()) == []


def test_a_log_whose_disk_is_full_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to(Path("/dev/full")):
        for number in range(3):
            logging.getLogger("tiny").error("number %d", number)
    told = capsys.readouterr().err
    assert told == "warning: /dev/full cannot be written: No space left on device\n"


def test_a_log_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.log cannot be written"):
        with logging_to(tmp_path / "nowhere/run.log"):
            pass


def test_a_failure_of_what_sends_a_result_keeps_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent last, from a run folder that has it; the next run builds nothing else."""
    ran: list[str] = []

    def send(self: Use, task: Task) -> None:
        ran.append(task.node_name)
        if task.node_name == "send":
            assert (tmp_path / "run/used/used.json").is_file()
            raise StageFailed("nobody takes it", remedy="ask again")
        work(self, task)

    work = Use.run
    files = dict(FILES)
    files["graph/tiny.yaml"] += """
  send:
    kind: send
    final: true
    inputs: {words: make, used: use}
    params: {times: 1, threads: 1}
  later: {kind: make, final: true, params: {data: {kind: words, count: 7}}}
"""
    monkeypatch.setitem(ENTRIES["stage"], "send", type("Send", (Use,), {"sends": True}))
    monkeypatch.setattr(Use, "run", send)
    folder = write_files(tmp_path / "conf", files)
    monkeypatch.chdir(tmp_path)
    config = loaded(folder, "mode=run")
    (tmp_path / "run").mkdir()
    with pytest.raises(StageFailed, match="nobody takes it"):
        run(config, tmp_path / "run")
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["status"] == "failed" and "nobody takes it" in result["error"]
    nodes = {node["name"]: node["status"] for node in result["nodes"]}
    assert nodes == {"make": "built", "use": "built", "later": "built"}
    assert ran == ["use", "send"]
    monkeypatch.setattr(Use, "run", work)
    assert run(config, tmp_path / "run") == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert [node["name"] for node in result["nodes"] if node["status"] == "built"] == ["send"]
