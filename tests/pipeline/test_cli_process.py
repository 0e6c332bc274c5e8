"""The command line as a process of its own: imports, plugins and exit codes as a shell has them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.tiny import FILES, write_files

ROOT = Path(__file__).resolve().parents[2]

ENTRY_POINTS = """
[presswork.stages]
make = tests.pipeline.tiny:Make
use = tests.pipeline.tiny:Use
[presswork.datasets]
words = tests.pipeline.tiny:Words
[presswork.modifiers]
upper = tests.pipeline.tiny:Upper
reverse = tests.pipeline.tiny:Reverse
"""

TELL_IMPORTS = """
import sys
from pipeline.cli import main
try:
    main()
finally:
    heavy = {"torch", "transformers", "datasets", "compressed_tensors", "numba", "scipy"}
    print("HEAVY", sorted(heavy & set(sys.modules)))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables with which our package and a plugin, as pip would leave it, are found."""
    site = write_files(
        tmp_path / "site",
        {
            "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
            "tiny-1.0.dist-info/entry_points.txt": ENTRY_POINTS,
        },
    )
    conf = write_files(tmp_path / "conf", FILES)
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{site}",
        "PRESSWORK_CONF": str(conf),
        "COLUMNS": "200",
    }


def call(
    environment: dict[str, str], cwd: Path, *words: str, start: tuple[str, ...] = ("-m", "pipeline")
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *start, *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--cfg", "job"],
        ["mode=plan", "+foo=1"],
        ["mode=ls"],
        ["--config-name", "tiny", "mode=plan"],
    ],
)
def test_nothing_heavy_is_imported(
    environment: dict[str, str], tmp_path: Path, words: list[str]
) -> None:
    done = call(environment, tmp_path, *words, start=("-c", TELL_IMPORTS))
    assert done.stdout.rstrip().endswith("HEAVY []"), done.stdout + done.stderr


def test_help_is_short_and_lists_the_groups_of_the_team(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = call(environment, tmp_path, "--help")
    assert done.returncode == 0
    told = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert told[told.index("Groups of your own") :][1:3] == ["data", "few, given"]
    assert "w4a16_g64" in done.stdout
    assert len(told) < 70
    assert "hydra.cc" not in done.stdout


def test_a_run_of_a_plugins_stages_leaves_its_results_and_reuses_them(
    environment: dict[str, str], tmp_path: Path
) -> None:
    words = ("--config-name", "tiny", "mode=run", "data.count=2")
    first = call(environment, tmp_path, *words, "hydra.run.dir=first")
    assert first.returncode == 0, first.stderr
    assert json.loads((tmp_path / "first/used/used.json").read_text()) == ["word"] * 4
    second = call(environment, tmp_path, *words, "hydra.run.dir=second")
    assert second.returncode == 0, second.stderr
    nodes = json.loads((tmp_path / "second/result.json").read_text())["nodes"]
    assert {node["status"] for node in nodes} == {"hit"}
    again = call(environment, tmp_path, "--config-dir", "first", "--config-name", "config")
    assert again.returncode == 0, again.stderr
    listed = call(environment, tmp_path, "--config-name", "tiny", "mode=ls", "runs=[.]")
    assert "first" in listed.stdout and "second" in listed.stdout


def test_a_sweep_leaves_with_1_when_a_job_fails_and_runs_the_others(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = call(
        environment,
        tmp_path,
        "--config-name",
        "tiny",
        "-m",
        "mode=run",
        "data.count=0,4",
        "sweep.skip_invalid=true",
        "hydra.sweep.dir=sweep",
    )
    assert done.returncode == 1
    assert "job 0: error: data.count is 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "sweep/1/used/used.json").is_file()
    assert not (tmp_path / "sweep/0").exists()


def test_gc_frees_what_no_run_refers_to(environment: dict[str, str], tmp_path: Path) -> None:
    words = ("--config-name", "tiny")
    for count in ("2", "3"):
        done = call(
            environment,
            tmp_path,
            *words,
            "mode=run",
            f"data.count={count}",
            f"hydra.run.dir=runs/{count}",
        )
        assert done.returncode == 0, done.stderr
    for path in (tmp_path / "runs/3").rglob("*.json"):
        path.unlink()
    rules = ("mode=gc", "+gc.unreferenced=true", "runs=[runs]")
    dry = call(environment, tmp_path, *words, *rules)
    assert "2 artifacts" in dry.stdout and "would be freed" in dry.stdout
    wet = call(environment, tmp_path, *words, *rules, "+gc.dry_run=false")
    assert "2 artifacts" in wet.stdout, wet.stdout + wet.stderr
    assert "0 artifacts" in call(environment, tmp_path, *words, *rules).stdout
    checked = call(environment, tmp_path, *words, "mode=verify")
    assert checked.returncode == 0 and "2 of 2 artifacts" in checked.stdout


def test_verify_leaves_with_1_when_an_artifact_is_damaged(
    environment: dict[str, str], tmp_path: Path
) -> None:
    words = ("--config-name", "tiny")
    assert call(environment, tmp_path, *words, "mode=run").returncode == 0
    [victim] = (tmp_path / "outputs/store").rglob("words.json")
    victim.chmod(0o644)
    victim.write_text("[]")
    done = call(environment, tmp_path, *words, "mode=verify")
    assert done.returncode == 1
    assert "put aside" in done.stdout and "1 of 2 artifacts" in done.stdout


def test_doctor_says_what_there_is(environment: dict[str, str], tmp_path: Path) -> None:
    offline = {**environment, "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = call(offline, tmp_path, "mode=doctor")
    assert done.returncode == 0, done.stderr
    for word in ("torch", "memory", "writable", "127.0.0.1:9 cannot be reached"):
        assert word in " ".join(done.stdout.split())
