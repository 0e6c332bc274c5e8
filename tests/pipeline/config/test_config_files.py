"""Config files with faults of YAML, Hydra's own keys and the graph: one error, with a place."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from omegaconf import OmegaConf

from pipeline.config import config_files
from pipeline.config.config_files import NamingRepository
from pipeline.errors import UserError
from pipeline.report.files import read_config
from tests.pipeline.config.test_checked_loader import compose_checked
from tests.pipeline.tiny import FILES, loaded, write_files

FAULTS: dict[str, tuple[str | bytes, str]] = {
    "syntax": ("data: {count: 3\nx: [1,\n", r"conf/config\.yaml:2:2: this is no YAML: .*expected"),
    "tab": ("data:\n\tcount: 3\n", r"conf/config\.yaml:2:1: this is no YAML: .*'\\t'"),
    "python": ("x: !!python/name:os.getcwd\n", r"config\.yaml:1:4: the tag python/name:os\.getcwd"),
    "tag": ("x: !own {count: 3}\n", r"conf/config\.yaml:1:4: the tag !own is not allowed"),
    "bytes": (b"x: \xff\xfe\n", r"conf/config\.yaml is no config: .*can't decode"),
    "twice": ("x: 1\nx: 2\n", r"conf/config\.yaml:2:1: this is no YAML: .*duplicate key x"),
    "documents": ("x: 1\n---\ny: 2\n", r"conf/config\.yaml:2:1: this is no YAML: .*another"),
    "circle": ("x: &a {y: *a}\n", r"conf/config\.yaml is nested too deeply, or refers to itself"),
    "size": ("x: 1 #" + " " * 1_000_000, r"conf/config\.yaml has more than 1000000 bytes"),
    "defaults": (
        "defaults: {a: b}\n",
        r"conf/config\.yaml is no config: .*defaults must be a list",
    ),
    "package": ("# @package a b\nx: 1\n", r"conf/config\.yaml is no config: .*components"),
    "itself": ("defaults: [config]\n", r"refer to each other in a circle"),
    "misspelt": (
        "defaults: [{override /a: y}, {ov- erride /b: [c, d]}]\n",
        r"an entry of `defaults` in a chosen config gives several options",
    ),
    "copied": ("hydra: {job: {env_copy: [TINY_UNSET]}}\n", r"env_copy names 'TINY_UNSET'"),
    "date": (
        "x: !!timestamp 2020-01-01\n",
        r"conf/config\.yaml: x: Value .date. is not",
    ),
    "reference": ("x: ${y\n", r"conf/config\.yaml: x: .*'\$\{y'"),
    "type": ("hydra: {run: {dir: [x]}}\n", r"conf/config\.yaml: hydra\.run\.dir: Cannot convert"),
    "option": ("defaults: [{/a: x}]\n", r"conf/config\.yaml: a=x: there is no such option"),
    "options": ("defaults: [{/a: [y, x]}]\n", r"conf/config\.yaml: a=[xy]: there is no such"),
    "override": ("defaults: [{override /a: x}]\n", r"conf/config\.yaml: Could not override 'a'"),
    "chosen": ("defaults: [{/a: '${x}'}]\n", r"conf/config\.yaml: `defaults` has \$\{x\}"),
    "again": (
        "defaults: [{hydra/job_logging: default}]\n",
        r"conf/config\.yaml: hydra/job_logging is chosen twice",
    ),
    "other": (
        "defaults: [{hydra/launcher: basic}, {hydra/launcher: joblib}]\n",
        r"conf/config\.yaml: hydra/launcher is chosen already, and hydra/launcher: joblib",
    ),
    "verbose": ("hydra: {verbose: {a: 1}}\n", r"conf/config\.yaml: hydra\.verbose is \{'a': 1\}"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_config_file_is_one_error_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content, told = FAULTS[fault]
    file = tmp_path / "conf/config.yaml"
    file.parent.mkdir()
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=told) as caught:
        compose_checked(file.parent)
    assert str(caught.value).count("\n") <= 1


def test_what_aliases_stand_for_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config_files, "MOST_VALUES", 80)
    aliases = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: {d: &d [*b, *b, *b], e: *d}\n"
    write_files(tmp_path / "conf", {"config.yaml": aliases})
    with pytest.raises(UserError, match=r"conf/config\.yaml: its aliases .* more than 80 values"):
        compose_checked(tmp_path / "conf")
    monkeypatch.setattr(config_files, "MOST_VALUES", 150)
    compose_checked(tmp_path / "conf")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("graph.nodes.use.publish=../../x", r"graph\.nodes\.use\.publish is '\.\./\.\./x'"),
        ("graph.nodes.use.publish=/etc", r"graph\.nodes\.use\.publish is '/etc'"),
        ("graph.nodes.use.publish=result.json", r"publish is 'result\.json'"),
        ("graph=up", r"graph\.nodes\.\.\./a is no name of a node"),
        ("graph=x", r"graph is 'x', which is no mapping"),
        ("graph.nodes.make=x", r"graph\.nodes\.make: 'x' \(a text\) is given"),
        ("runs=[{a:1}]", r"runs is \[\{'a': 1\}\], which is not a list"),
        ("store.dir='a\0b'", r"store\.dir holds a zero byte"),
    ],
)
def test_a_fault_of_the_graph_or_of_a_path_is_told(tmp_path: Path, word: str, told: str) -> None:
    folder = write_files(tmp_path / "conf", FILES)
    write_files(folder, {"graph/x.yaml": "# @package _global_\ngraph: x\n"})
    write_files(folder, {"graph/up.yaml": "nodes: {'../a': {kind: make}}\n"})
    with pytest.raises(UserError, match=told):
        loaded(folder, word)


@pytest.mark.parametrize("text", ["a: {b\n", "a: !!python/name:os\n", "a: &a [*a]\n"])
def test_a_broken_config_of_a_run_folder_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml cannot be read"):
        read_config(tmp_path)


def test_a_file_is_parsed_once_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("x: 1\n")
    search = ConfigSearchPathImpl()
    search.append("main", f"file://{tmp_path}")
    first = NamingRepository(search)
    second = copy.deepcopy(first)
    one, two = first.load_config("a"), second.load_config("a")
    assert one is not None and two is not None and one.config == two.config == {"x": 1}
    two.config["x"] = 2
    again = first.load_config("a")
    assert again is not None and again.config == {"x": 1}
    with monkeypatch.context() as patch:
        patch.setattr(OmegaConf, "load", None)
        assert second.load_config("a") is not None
    path.write_text("x: 30\n")
    changed = second.load_config("a")
    assert changed is not None and changed.config == {"x": 30}
