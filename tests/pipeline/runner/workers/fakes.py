"""Stages for workers in other processes: they note each run, and fail or die on order."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.graph import Graph
from pipeline.planning.expand import expand
from pipeline.planning.site import SitePlan
from pipeline.stage import Stage, Task
from pipeline.store import Store
from tests.pipeline import sites as fake
from tests.pipeline.runner.chains import runner_for
from tests.pipeline.runner.test_local import site


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """What goes wrong: `fail` in node `node`, or its process is killed the first `kills` times.

    Its first run takes `waits` seconds.

    `notes` is a folder where each run of a node adds a line to the file of its name.
    """

    notes: str = field(metadata={"key": False})
    node: str = field(default="", metadata={"key": False})
    fail: bool = field(default=False, metadata={"key": False})
    kills: int = field(default=0, metadata={"key": False})
    waits: float = field(default=0.0, metadata={"key": False})


class Noted(Stage):
    """Adds one to the number before it; `carry` is transient, `sum` stays."""

    kind: ClassVar[str] = "noted"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = Trouble
    outputs: ClassVar[tuple[str, ...]] = ("carry", "sum")

    def demands(self) -> Mapping[str, tuple[str, ...]]:
        return {"before": ("carry",)}

    def transient(self) -> frozenset[str]:
        return frozenset({"carry"})

    def run(self, task: Task) -> None:
        config: Trouble = self.config
        before = note(Path(config.notes), task.node_name)
        if task.node_name == config.node:
            if config.fail:
                raise UserError("there is no bottom", remedy="look for one")
            if before < config.kills:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.0 if before else config.waits)
        total = 1
        if "before" in task.inputs:
            total += task.inputs["before"].json("value.json")
        for draft in task.outputs.values():
            draft.write_json("value.json", total)


class InDriver(Noted):
    """The same where the command was given."""

    kind: ClassVar[str] = "in_driver"
    outputs: ClassVar[tuple[str, ...]] = ("out",)
    in_driver: ClassVar[bool] = True

    def transient(self) -> frozenset[str]:
        return frozenset()


def note(folder: Path, name: str) -> int:
    """Add a line to the file of a name: this process and its variables; how many there were."""
    line = f"{os.getpid()} {' '.join(sorted(os.environ))}\n"
    with (folder / name).open("a+", encoding="utf-8") as file:
        file.seek(0)
        before = len(file.readlines())
        file.write(line)
    return before


def runs(folder: Path) -> dict[str, int]:
    """How often each node ran."""
    return {path.name: len(path.read_text().splitlines()) for path in folder.iterdir()}


def noted_sites(trouble: Trouble, count: int = 4) -> dict[str, SitePlan]:
    """A chain of `count` nodes, and what puts their sums together."""
    made = [
        site(fake.Source(fake.Number(value=1))),
        site(fake.Lister(fake.Count(count=count)), {"source": "source"}),
        site(Noted(trouble), {"before": "noted@previous"}, each="lister"),
        site(InDriver(trouble), {"before": "noted@last"}),
        site(fake.Total(fake.Number()), {"steps": "noted", "driver": "in_driver"}, final=True),
    ]
    return {plan.name: plan for plan in made}


def noted_graph(store: Store, trouble: Trouble, count: int = 4) -> Graph:
    sites = noted_sites(trouble, count)
    return expand(sites, mode="run", find=store.get, build=runner_for(store).result).graph
