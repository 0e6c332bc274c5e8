"""Fake stages for tests of the framework: no language model, only files with a number in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from pipeline.content import Memory
from pipeline.errors import UserError
from pipeline.stage import Artifact, Estimate, Site, Stage, Survey, Task

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


@dataclass(frozen=True)
class Blob:
    """Bytes as the content of a file, in memories of given names and sizes, the first of which it
    lies in."""

    data: bytes
    places: tuple[tuple[str, int], ...] = (("cpu", 1 << 40),)

    @property
    def bytes(self) -> int:
        return len(self.data)

    @property
    def memories(self) -> tuple[Memory, ...]:
        return tuple(Memory(name=name, capacity=size) for name, size in self.places)

    def moved(self, memory: str) -> Blob:
        names = [name for name, _ in self.places]
        return replace(self, places=self.places[names.index(memory) :])

    def write(self, path: Path) -> None:
        path.write_bytes(self.data)


@dataclass(frozen=True, kw_only=True, slots=True)
class Blobs:
    """`size` bytes are handed on, in `files` pieces; `memory` is not part of any key."""

    size: int = 1000
    files: int = 2
    memory: int | None = field(default=None, metadata={"key": False})


class Hand(Stage):
    """Reads what the hand before passed on, and passes on one letter more; the last letter stays.

    `solved` is what must not be built twice; `passed` is transient.
    """

    kind: ClassVar[str] = "hand"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = Blobs
    outputs: ClassVar[tuple[str, ...]] = ("passed",)

    @property
    def held_memory(self) -> int | None:
        memory: int | None = self.config.memory
        return memory

    def demands(self) -> Mapping[str, tuple[str, ...]]:
        return {"before": ("passed",), "solved": ("out",)}

    def transient(self) -> frozenset[str]:
        return frozenset({"passed"})

    def survey(self, site: Site) -> Survey:
        cost = Estimate(bytes=self.config.size, outputs={"passed": self.config.size}, memory=10**6)
        return Survey(estimates={f"layer.{k}": cost for k in range(9)})

    def run(self, task: Task) -> None:
        CALLS.append(task.node_name)
        letters = read_blobs(task.inputs["before"]) if "before" in task.inputs else ""
        letters += task.inputs["solved"].json("value.json")
        part = self.config.size // self.config.files
        for number in range(self.config.files):
            data = letters.encode().ljust(part, b".")
            task.outputs["passed"].put(f"{number}.bin", Blob(data))
        task.outputs["passed"].meta["letters"] = len(letters)


class Solve(Stage):
    """Solves a member from what the hand before passed on; takes long, and is stored."""

    kind: ClassVar[str] = "solve"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = Number

    def demands(self) -> Mapping[str, tuple[str, ...]]:
        return {"before": ("passed",)}

    def run(self, task: Task) -> None:
        CALLS.append(task.node_name)
        letters = read_blobs(task.inputs["before"]) if "before" in task.inputs else ""
        task.outputs["out"].write_json("value.json", chr(ord("a") + len(letters)))


def read_blobs(result: Artifact) -> str:
    """The letters that every file of a result begins with."""
    assert result.meta["letters"] > 0
    found = set()
    for name in result.names:
        content = result.content(name)
        data = content.data if isinstance(content, Blob) else result.file(name).read_bytes()
        found.add(data.rstrip(b".").decode())
    [letters] = found
    return letters


class Word(Stage):
    """Puts all solutions together."""

    kind: ClassVar[str] = "word"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = Number

    def run(self, task: Task) -> None:
        CALLS.append(task.node_name)
        names = sorted(task.inputs, key=lambda name: int(name.rpartition("/")[2]))
        word = "".join(task.inputs[name].json("value.json") for name in names)
        task.outputs["out"].write_json("value.json", word)


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
