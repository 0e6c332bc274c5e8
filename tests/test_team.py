"""A team's repository: it runs with presswork installed from a wheel, in every way it can be said.

Wheels are built from this checkout and from tests/team. An environment is a venv without pip that
borrows the libraries of the one that runs the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEAM = ROOT / "tests" / "team"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A venv, and a folder to run commands in."""

    python: Path
    cwd: Path
    home: Path

    def presswork(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PRESS"))}
        return subprocess.run(
            [self.python.parent / "presswork", *words],
            cwd=self.cwd,
            env={**inherited, "COLUMNS": "120", "OMP_NUM_THREADS": "1", **variables},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def run(self, *words: str, **variables: str) -> dict[str, Any]:
        """result.json of a run that must succeed; all runs share one store."""
        folder = self.cwd / "run"
        shutil.rmtree(folder, ignore_errors=True)
        given = (f"store.dir={self.home / 'store'}", "device=cpu", "runner.threads=1")
        done = self.presswork(*words, *given, f"hydra.run.dir={folder}", **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        return result


def pip(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Wheel by project; built without an index, by the hatchling that is installed."""
    folder = tmp_path_factory.mktemp("wheels")
    for source in (ROOT, TEAM):
        pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, some_text: Path) -> Path:
    """The team's repository as it is checked out, with its model and its data."""
    folder = tmp_path_factory.mktemp("checkout") / "team"
    shutil.copytree(TEAM, folder)
    shutil.copytree(tiny_llama, folder / "models" / "small")
    (folder / "data").mkdir()
    shutil.copy(some_text, folder / "data" / "tickets.txt")
    return folder


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, wheels: dict[str, Path]) -> Path:
    """The Python of a venv with presswork's wheel in it."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    there = folder / "bin" / "python"
    pip("--python", str(there), "install", "--no-deps", str(wheels["presswork"]))
    return there


@pytest.fixture
def place(
    tmp_path: Path, home: Path, wheels: dict[str, Path], python: Path
) -> Iterator[Callable[..., Place]]:
    """Installs the team's package as told (wheel, editable or none), and takes it out again."""

    def make(team: str = "none", cwd: Path = tmp_path) -> Place:
        how = {
            "wheel": [str(wheels["acme_compression"])],
            "editable": ["-e", str(home)],
            "none": [],
        }
        if how[team]:
            into = ["--python", str(python), "install", "--no-deps", "--no-build-isolation"]
            pip(*into, *how[team])
        return Place(python=python, cwd=cwd, home=home)

    yield make
    pip("--python", str(python), "uninstall", "--yes", "acme-compression")


def test_the_wheel_is_whole(place: Callable[..., Place]) -> None:
    """Configs, pages and styles are in it, and it does not look into this checkout."""
    there = place()
    asked = "import pipeline, stages; print(pipeline.__file__); print(stages.__file__)"
    done = subprocess.run(
        [there.python, "-c", asked], cwd=there.cwd, capture_output=True, text=True, check=True
    )
    pipeline, stages = (Path(line).parent for line in done.stdout.split())
    assert pipeline.is_relative_to(there.python.parents[1])
    assert (pipeline / "conf" / "config.yaml").is_file()
    assert (stages / "docs" / "extend" / "stage.md").is_file()


def test_from_its_folder_with_the_package_in_development(
    place: Callable[..., Place], home: Path
) -> None:
    there = place("editable", home)
    result = there.run("+experiment=nightly", "gate.most=2")
    assert {row["solver"] for row in result["layers"]} == {"best_of"}
    assert 0 < result["eval"]["gate"]["ratio"] < 2
    assert result["verify"]["ok"] is True


@pytest.mark.parametrize("way", ["variable", "option"])
def test_its_configs_alone_need_no_installation(
    place: Callable[..., Place], home: Path, way: str
) -> None:
    there = place("none", home)
    given = ["--config-dir", "acme/conf"] if way == "option" else []
    variables = {"PRESSWORK_CONF": "acme/conf"} if way == "variable" else {}
    result = there.run(*given, "+experiment=first_look", **variables)
    assert {row["scheme"] for row in result["layers"]} == {"W8A16 g32"}
    assert result["verify"]["ok"] is True


def test_installed_it_works_from_anywhere(place: Callable[..., Place], home: Path) -> None:
    there = place("wheel")
    result = there.run("+experiment=nightly", "gate.most=2", ACME_HOME=str(home))
    assert {row["solver"] for row in result["layers"]} == {"best_of"}
    refused = there.presswork(
        "+experiment=nightly",
        "gate.most=0.5",
        f"store.dir={home / 'store'}",
        "device=cpu",
        "runner.threads=1",
        ACME_HOME=str(home),
    )
    assert refused.returncode == 1
    assert "gate: perplexity grew" in refused.stderr and "Traceback" not in refused.stderr


def test_its_groups_show_in_help_and_in_completion(place: Callable[..., Place]) -> None:
    there = place("wheel")
    shown = there.presswork("--help").stdout
    for name in ("acme_small", "tickets", "house", "best_of", "gated", "nightly"):
        assert name in shown
    for line, expected in (
        ("presswork model=ac", "model=acme_small"),
        ("presswork +experiment=ni", "+experiment=nightly"),
        ("presswork scheme=hou", "scheme=house"),
        ("presswork scheme.weights.group_s", "scheme.weights.group_size="),
    ):
        done = there.presswork("-sc", "query=bash", COMP_LINE=line)
        assert done.stdout.split() == [expected], done.stdout + done.stderr


def test_the_completion_can_be_installed(place: Callable[..., Place]) -> None:
    script = place().presswork("-sc", "install=bash")
    assert script.returncode == 0 and "COMPREPLY" in script.stdout


def test_what_is_not_there_is_told(place: Callable[..., Place], home: Path) -> None:
    there = place("wheel")
    for words, variables, told in (
        (["mode=plan"], {"PRESSWORK_CONF": "nowhere"}, "PRESSWORK_CONF names nowhere, which is no"),
        (["--config-dir", "nowhere"], {}, "nowhere"),
        (["+experiment=nightly"], {"ACME_HOME": "/nowhere"}, "/nowhere/models/small"),
        (["+experiment=nigthly"], {}, "did you mean nightly?"),
    ):
        done = there.presswork(*words, **variables)
        assert done.returncode == 1 and told in done.stderr, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
