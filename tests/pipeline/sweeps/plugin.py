"""Two stages, a config and processes of their own for sweeps that take no model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipeline.errors import UserError
from pipeline.stage import Stage, Task
from tests.pipeline.tiny import write_files

ROOT = Path(__file__).resolve().parents[3]

LONGEST = 500
"""Seconds that a test waits for something: less than pytest lets it take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixConfig:
    seconds: float
    log: str


class Prefix(Stage):
    """What all jobs share: takes some time, and notes that it was begun and done.

    PREFIX_UNTIL names a file that it waits for instead: when it is done changes no key.
    """

    kind: ClassVar[str] = "prefix"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = PrefixConfig

    def run(self, task: Task) -> None:
        note(Path(self.config.log), f"begun {os.getpid()}")
        if gate := os.environ.get("PREFIX_UNTIL"):
            wait_for(Path(gate))
        else:
            time.sleep(self.config.seconds)
        task.outputs["out"].write_json("prefix.json", 3)
        note(Path(self.config.log), f"done {os.getpid()}")


def wait_for(path: Path) -> None:
    """Return once there is such a file; a test that failed leaves nothing waiting for ever."""
    deadline = time.monotonic() + LONGEST
    while not path.exists():
        if time.monotonic() > deadline:
            raise UserError(f"{path} never came")
        time.sleep(0.05)


def note(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as log:
        log.write(text + "\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreConfig:
    times: int


class Score(Stage):
    """What each job does alone. Thirteen cannot be scored; the best score has 5."""

    kind: ClassVar[str] = "score"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = ScoreConfig

    def run(self, task: Task) -> None:
        times = self.config.times
        if times == 13:
            raise UserError("thirteen cannot be scored", remedy="take another")
        product = times * task.inputs["prefix"].json("prefix.json")
        task.outputs["out"].write_json("score.json", product)
        perplexity = {"original": 20.0, "compressed": 21.0 + abs(times - 5)}
        size = {"original_bytes": 9000, "compressed_bytes": 100 * times, "bits_per_weight": times}
        task.outputs["out"].meta["result"] = {"size": size, "eval": {"perplexity": perplexity}}


PRIMARY = """
defaults: [base, _self_]
mode: run
device: cpu
numerics: {device: "${device}", threads: "${runner.threads}"}
store: {dir: store}
runner: {kind: local, workers: 1, threads: 1}
gc: {}
report: {}
runs: [outputs/sweeps]
objective: null
score: {times: 2}
prefix: {seconds: 0.5, log: log.txt}
graph:
  nodes:
    prefix: {kind: prefix, params: {seconds: "${prefix.seconds}", log: "${prefix.log}"}}
    score: {kind: score, final: true, inputs: {prefix: prefix}, params: {times: "${score.times}"}}
"""

ENTRY_POINTS = """
[presswork.stages]
prefix = tests.pipeline.sweeps.plugin:Prefix
score = tests.pipeline.sweeps.plugin:Score
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A folder to start commands in, and the variables with which the plugin is found."""

    folder: Path
    env: dict[str, str]

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pipeline", "--config-name", "sweeping", *words]

    def sweep(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A sweep into the folder `sweep`, to its end."""
        return subprocess.run(
            self.command("-m", "hydra.sweep.dir=sweep", *words),
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A sweep in a process group of its own, to be killed."""
        return subprocess.Popen(
            self.command("-m", *words),
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def held_sweep(self, until: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A sweep into the folder `sweep` whose prefix is not done before it says `until`."""
        gate = self.folder / "gate"
        said = list[str]()
        with subprocess.Popen(
            self.command("-m", "hydra.sweep.dir=sweep", *words),
            cwd=self.folder,
            env={**self.env, "PREFIX_UNTIL": str(gate)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            assert running.stderr is not None
            for line in running.stderr:
                said.append(line)
                if until in line:
                    gate.touch()
        return subprocess.CompletedProcess(running.args, running.returncode, "", "".join(said))

    def result(self, folder: str = "sweep") -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / folder / "sweep.json").read_text())
        return content

    def prefixes(self) -> Counter[str]:
        """How often the shared prefix was begun and done."""
        lines = (self.folder / "log.txt").read_text().splitlines()
        return Counter(line.split()[0] for line in lines)


def place(folder: Path) -> Place:
    """A fresh folder with the plugin as pip would leave it."""
    site = write_files(
        folder / "site",
        {
            "sweeping-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: sweeping\nVersion: 1",
            "sweeping-1.0.dist-info/entry_points.txt": ENTRY_POINTS,
        },
    )
    conf = write_files(folder / "conf", {"sweeping.yaml": PRIMARY})
    work = folder / "work"
    work.mkdir()
    own = {"PYTHONPATH": f"{ROOT}:{site}", "PRESSWORK_CONF": str(conf), "COLUMNS": "200"}
    return Place(folder=work, env={**os.environ, **own})
