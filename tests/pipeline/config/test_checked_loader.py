"""What YAML may not make Hydra do; the code that it names would leave a file, and none is left."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pipeline import cli
from pipeline.config.checked_loader import checked
from pipeline.config.hydra_rules import refused
from pipeline.config.primary import rules
from pipeline.config.searchpath import register
from pipeline.errors import UserError
from tests.pipeline.tiny import FILES, write_files

MARKER = """
from pathlib import Path
HERE = Path(__file__).parent / "marked"
def mark(*args, **kwargs):
    HERE.touch()
    raise SystemExit("code of a config ran")
class Mark:
    __init__ = mark
"""

REFUSED = {
    "callbacks": (
        "callbacks: {x: {_target_: marker.Mark}}",
        "hydra.callbacks names code to run",
    ),
    "callbacks by reference": ('callbacks: "${made}"', "hydra.callbacks names code"),
    "handler": (
        "job_logging: {version: 1, root: {handlers: [x]}, handlers: {x: {class: marker.Mark}}}",
        "hydra.job_logging is none of the installed options",
    ),
    "factory": (
        "hydra_logging: {version: 1, root: {handlers: [x]}, handlers: {x: {(): marker.mark}}}",
        "hydra.hydra_logging is none of the installed options",
    ),
    "formatter": (
        "job_logging: {version: 1, formatters: {x: {(): marker.mark}}}",
        "hydra.job_logging is none of the installed options",
    ),
    "file elsewhere": (
        "job_logging: {version: 1, handlers: {x: {class: logging.FileHandler, filename: marked}}}",
        "hydra.job_logging is none of the installed options",
    ),
    "launcher": (
        "launcher: {_target_: marker.mark}",
        "hydra.launcher._target_ is 'marker.mark': configs name no classes",
    ),
    "below a sweeper": (
        "sweeper: {params: {x: {_target_: marker.mark}}}",
        "hydra.sweeper.params.x._target_ is 'marker.mark'",
    ),
    "made by a resolver": (
        "sweeper: {params: {x: \"${oc.create:'{_target_: marker.mark}'}\"}}",
        "which can name code to run",
    ),
    "made late by a resolver": (
        "sweeper: {params: {x: \"${oc.create:'{_target_: ${hydra.job.id}}'}\"}}",
        "which can name code to run",
    ),
    "variables": (
        "job: {env_set: {HF_ENDPOINT: http://localhost:1}}",
        "hydra.job.env_set holds commands, addresses or variables",
    ),
}


def config(hydra: str, *defaults: str) -> str:
    words = ", ".join(["base", *defaults, "_self_"])
    return f"defaults: [{words}]\nmade: {{x: 1}}\nhydra:\n  {hydra}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an importable module that leaves a file when it is used."""
    write_files(tmp_path / "code", {"marker.py": MARKER})
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "conf"


def compose_checked(folder: Path, *overrides: str, name: str = "config") -> None:
    register()
    with checked(), initialize_config_dir(str(folder), **rules()):
        compose(name, overrides=list(overrides))


FAST = ("callbacks", "handler", "launcher", "variables")
"""Of each kind one; the others are marked slow, as a composition takes half a second."""


@pytest.mark.parametrize(
    "case",
    [case if case in FAST else pytest.param(case, marks=pytest.mark.slow) for case in REFUSED],
    ids=lambda case: case.replace(" ", "_"),
)
def test_a_config_that_would_run_code_is_refused_by_its_file_and_key(
    folder: Path, case: str
) -> None:
    hydra, told = REFUSED[case]
    write_files(folder, {"config.yaml": config(hydra)})
    with pytest.raises(UserError) as refused:
        compose_checked(folder)
    assert str(refused.value).startswith("conf/config.yaml: hydra.")
    assert told in str(refused.value)
    assert not (folder.parent / "code/marked").exists()


@pytest.mark.parametrize("mode", ["plan", "explain"])
def test_no_mode_of_the_command_line_runs_code_of_a_strangers_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    evil = REFUSED["callbacks"][0]
    write_files(folder, {**FILES, "config.yaml": config(evil)})
    words = ["--config-dir", str(folder), "--config-name", "config", f"+mode={mode}"]
    monkeypatch.setattr(sys, "argv", ["pipeline", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    told = capsys.readouterr().err
    assert left.value.code == 1
    assert told.startswith("error: conf/config.yaml: hydra.callbacks") and told.count("\n") == 2
    assert not (folder.parent / "code/marked").exists()


def test_an_experiment_of_one_job_is_refused_before_that_job_logs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = f"# @package _global_\nhydra:\n  {REFUSED['handler'][0]}\n"
    write_files(folder, {**FILES, "experiment/evil.yaml": experiment})
    (folder / "experiment/good.yaml").write_text("# @package _global_\ndata: {count: 3}\n")
    words = ["--config-dir", str(folder), "--config-name", "tiny", "-m", "+experiment=evil,good"]
    monkeypatch.setattr(sys, "argv", ["pipeline", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    told = capsys.readouterr().err
    assert left.value.code == 1 and "Traceback" not in told
    assert "error: conf/experiment/evil.yaml: hydra.job_logging is none of" in told
    assert not (folder.parent / "code/marked").exists()


def test_shipped_logging_launchers_and_sweepers_go_on_working(folder: Path) -> None:
    write_files(folder, {"config.yaml": config("verbose: false")})
    before = logging.getLogger().level
    for words in (
        ["hydra/job_logging=default", "hydra.job_logging.root.level=DEBUG"],
        ["hydra/launcher=slurm", "hydra.launcher.setup=[module load cuda]"],
        ["hydra/launcher=joblib", "hydra/sweeper=optuna", "+hydra.job.env_set.NAME=value"],
    ):
        compose_checked(folder, *words)
    assert logging.getLogger().level == before


def test_commands_of_a_launcher_come_from_the_user_and_not_from_any_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = "defaults: [submitit_slurm, _self_]\nsetup: [module load cuda]\n"
    write_files(folder, {"config.yaml": config("verbose: false")})
    write_files(folder, {"hydra/launcher/team.yaml": launcher})
    with pytest.raises(UserError, match=r"conf/hydra/launcher/team\.yaml: hydra\.launcher\.setup"):
        compose_checked(folder, "hydra/launcher=team")
    monkeypatch.setenv("PRESSWORK_CONF", str(folder))
    compose_checked(folder, "hydra/launcher=team")


def test_where_results_go_is_said_by_the_user_and_not_by_any_folder(folder: Path) -> None:
    tracker = "tracker: {kind: mlflow, uri: 'http://localhost:1'}\n"
    write_files(folder, {"config.yaml": config("verbose: false") + tracker})
    with pytest.raises(UserError, match=r"conf/config\.yaml: tracker\.uri says where results"):
        compose_checked(folder)
    compose_checked(folder, "tracker.uri=http://localhost:2")


@pytest.mark.parametrize(
    ("section", "value", "key"),
    [
        ("tracker", {"space": "someone/else"}, "tracker.space"),
        ("tracker", "${other}", "tracker"),
        ("environment", {"published": ["HF_TOKEN"]}, "environment.published"),
        ("gc", {"dry_run": False}, "gc.dry_run"),
        ("gc", {"dry_run": "${x}"}, "gc.dry_run"),
        ("gc", {"dry_run": True}, ""),
        ("eval", {"include_path": "tasks"}, "eval.include_path"),
        ("eval", {"vllm": {"python": "bin/python"}}, "eval.vllm.python"),
        ("eval", {"vllm": "${x}"}, "eval.vllm.python"),
        ("eval", {"vllm": {"python": None}, "include_path": None}, ""),
        ("environment", {"published": []}, ""),
        ("tracker", {"uri": None, "project": "x"}, ""),
    ],
)
def test_what_sends_publishes_or_frees_is_for_the_user_to_say(
    section: str, value: object, key: str
) -> None:
    cfg = OmegaConf.create({"hydra": {"job": {}, "verbose": False}, section: value})
    plain = {"version": 1, "root": None, "disable_existing_loggers": False}
    cfg.hydra.update(job_logging=plain, hydra_logging=plain)
    found = [".".join(problem.path) for problem in refused(cfg, lambda group: [])]
    assert found == ([key] if key else [])


def test_a_function_of_a_sweeper_is_refused(folder: Path) -> None:
    write_files(folder, {"config.yaml": config("verbose: false")})
    sweeper = "defaults: [optuna, _self_]\ncustom_search_space: marker.mark\n"
    write_files(folder, {"hydra/sweeper/team.yaml": sweeper})
    with pytest.raises(UserError, match=r"team\.yaml: hydra\.sweeper\.custom_search_space"):
        compose_checked(folder, "hydra/sweeper=team")
    with pytest.raises(UserError, match=r"hydra\.sweeper\.sampler\._target_ is 'marker\.mark'"):
        compose_checked(
            folder, "hydra/sweeper=optuna", "hydra.sweeper.sampler._target_=marker.mark"
        )


def test_a_pickle_is_no_config(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pipeline", "--experimental-re", "x.pickle"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    assert "error: --experimental-rerun runs a pickle" in capsys.readouterr().err
