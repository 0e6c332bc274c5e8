"""Fake stages for tests of the framework: no language model, only files with a number in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.errors import UserError
from pipeline.stage import Site, Stage, Survey, Task

CALLS: list[str] = []
"""Names of the nodes that ran, in order; a test clears it first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    value: int = 0


class Source(Stage):
    """Writes its number."""

    kind: ClassVar[str] = "source"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = Number

    def run(self, task: Task) -> None:
        CALLS.append(task.node_name)
        task.outputs["out"].write_json("value.json", self.config.value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    count: int = 2


class Lister(Stage):
    """Lists `count` members, after a look at its input."""

    kind: ClassVar[str] = "lister"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = Count

    def survey(self, site: Site) -> Survey:
        if self.config.count > 9:
            return Survey(problems=(UserError(f"count is {self.config.count}"),))
        site.artifact("source")
        return Survey(members=tuple(f"layer.{k}" for k in range(self.config.count)))

    def run(self, task: Task) -> None:
        CALLS.append(task.node_name)
        task.outputs["out"].write_json("members.json", self.config.count)


class Step(Stage):
    """Adds its number to what the step before it left; `carry` is what the next one reads."""

    kind: ClassVar[str] = "step"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = Number
    outputs: ClassVar[tuple[str, ...]] = ("carry", "sum")

    def demands(self) -> Mapping[str, tuple[str, ...]]:
        return {"before": ("carry",)}

    def transient(self) -> frozenset[str]:
        return frozenset({"carry"})

    def run(self, task: Task) -> None:
        CALLS.append(task.node_name)
        name = "before" if "before" in task.inputs else "source"
        total = task.inputs[name].json("value.json") + self.config.value
        for draft in task.outputs.values():
            draft.write_json("value.json", total)


class Total(Stage):
    """Adds all sums up."""

    kind: ClassVar[str] = "total"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = Number

    def demands(self) -> Mapping[str, tuple[str, ...]]:
        return {"steps": ("sum",)}

    def run(self, task: Task) -> None:
        CALLS.append(task.node_name)
        values: list[Any] = [task.inputs[name].json("value.json") for name in sorted(task.inputs)]
        task.outputs["out"].write_json("value.json", sum(values))
