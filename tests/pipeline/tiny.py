"""A config folder and two stages that know no model, for tests of configs and the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from pipeline.config.primary import rules
from pipeline.config.root import Config, load_config
from pipeline.config.searchpath import register
from pipeline.errors import UserError
from pipeline.registry import Registry
from pipeline.stage import Stage, Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """A dataset of so many words."""

    count: int = 3
    language: str | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"count is {self.count}", remedy="give 1 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class MakeConfig:
    data: Any = field(metadata={"component": "dataset"})
    steps: Any = field(default=(), metadata={"components": "modifier"})


class Make(Stage):
    kind: ClassVar[str] = "make"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = MakeConfig

    def run(self, task: Task) -> None:
        task.outputs["out"].write_json("words.json", ["word"] * self.config.data.count)


@dataclass(frozen=True, kw_only=True, slots=True)
class UseConfig:
    times: int
    threads: int


class Use(Stage):
    kind: ClassVar[str] = "use"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = UseConfig

    def run(self, task: Task) -> None:
        words = task.inputs["words"].json("words.json")
        folder = task.outputs["out"].path / "used"
        folder.mkdir()
        (folder / "used.json").write_text(json.dumps(words * self.config.times))


@dataclass(frozen=True, kw_only=True, slots=True)
class Upper:
    strength: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Reverse:
    pass


ENTRIES = {
    "stage": {"make": Make, "use": Use},
    "dataset": {"words": Words},
    "modifier": {"upper": Upper, "reverse": Reverse},
}

PRIMARY = """
defaults: [base, data: few, modifier: [], graph: tiny, _self_]
mode: plan
device: cpu
numerics: {device: "${device}", threads: "${runner.threads}"}
store: {dir: outputs/store}
runner: {kind: local, workers: 1, threads: null}
gc: {}
report: {}
runs: [outputs/runs]
modifier: {}
use: {times: 2}
"""

FILES = {
    "tiny.yaml": PRIMARY,
    "data/few.yaml": "kind: words\ncount: 3\nlanguage: null\n",
    "data/given.yaml": "kind: words\ncount: ???\n",
    "modifier/upper.yaml": "# @package modifier.upper\nkind: upper\nstrength: 0.5\n",
    "modifier/reverse.yaml": "# @package modifier.reverse\nkind: reverse\n",
    "graph/tiny.yaml": """
wiring: {all: make, none: use}
nodes:
  make:
    kind: make
    params: {data: "${data}", steps: "${modifier}"}
  use:
    kind: use
    final: true
    publish: used
    inputs: {words: make}
    params: {times: "${use.times}", threads: "${numerics.threads}"}
""",
    "graph/short.yaml": """
unused: [use]
nodes:
  make: {kind: make, final: true, params: {data: "${data}", steps: "${modifier}"}}
""",
}


def tiny_registry() -> Registry:
    registry = Registry()
    for group, kinds in ENTRIES.items():
        for kind, cls in kinds.items():
            registry.register(group, kind, cls)
    return registry


def write_files(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def composed(folder: Path, *overrides: str, name: str = "tiny") -> DictConfig:
    register()
    with initialize_config_dir(str(folder), **rules()):
        return compose(name, overrides=list(overrides))


def loaded(folder: Path, *overrides: str, name: str = "tiny") -> Config:
    cfg = composed(folder, *overrides, name=name)
    return load_config(cfg, tiny_registry(), overrides=overrides)
