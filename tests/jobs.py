"""Whole runs in this process, on tiny models: what the tests of the main job are made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.modes.plan import plan
from pipeline.modes.run import run
from pipeline.registry import Registry
from tests.benchmarks.crash import digests
from tests.pipeline.tiny import composed


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A tiny model and text in `folder`; each run has a folder of its own there."""

    folder: Path
    model: Path
    text: Path

    def overrides(self, *more: str) -> list[str]:
        return [
            "device=cpu",
            "runner.threads=1",
            f"store.dir={self.folder / 'store'}",
            "model=local",
            f"model.path={self.model}",
            "dataset=text",
            f"dataset.path={self.text}",
            "dataset.num_samples=6",
            "dataset.sequence_length=64",
            "calibrate.batch_size=2",
            "scheme.weights.group_size=32",
            "eval=none",
            *more,
        ]

    def run(self, name: str, *more: str) -> dict[str, Any]:
        """Run with these overrides; result.json of the run folder `name`."""
        given = self.overrides(*more)
        # a scheme whose groups are fixed (or that has none) keeps its own
        if any(word.startswith("scheme=") for word in more):
            given.remove("scheme.weights.group_size=32")
        if any(word.startswith("eval=") for word in more):
            given.remove("eval=none")
        if any(word.startswith("model=") and word != "model=local" for word in more):
            given = [word for word in given if word not in self.overrides()[3:5]]
        cfg = composed(own_configs(), *given, name="config")
        target = self.folder / name
        target.mkdir(exist_ok=True)
        run(load_config(cfg, Registry.load(), overrides=given), target)
        result: dict[str, Any] = json.loads((target / "result.json").read_text())
        return result

    def plan(self, *more: str) -> int:
        given = self.overrides("mode=plan", *more)
        cfg = composed(own_configs(), *given, name="config")
        return plan(load_config(cfg, Registry.load(), overrides=given), self.folder)

    def checkpoint(self, name: str) -> dict[str, str]:
        """sha256 of every file of a run's checkpoint."""
        return digests(self.folder / name / "checkpoint")


def built(result: dict[str, Any]) -> set[str]:
    """Names of the nodes that a run built."""
    return {node["name"] for node in result["nodes"] if node["status"] == "built"}
