"""Artifacts, drafts and tasks without a store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pipeline.content import Content
from pipeline.stage import Task
from stages.model import Blueprint
from stages.model.blueprint import FILE
from tests.stages.model.tiny import Tiny


@dataclass
class FakeArtifact:
    """A folder as a result; as a draft it is the same folder being filled."""

    path: Path
    key: str = "key"
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in self.path.iterdir()))

    def content(self, name: str) -> None:
        """Nothing is held in memory here."""

    def put(self, name: str, content: Content) -> None:
        content.write(self.path / name)

    def file(self, name: str) -> Path:
        return self.path / name

    def json(self, name: str) -> Any:
        return json.loads(self.file(name).read_text())

    def write_json(self, name: str, value: Any) -> None:
        self.file(name).write_text(json.dumps(value))


def folder(path: Path) -> FakeArtifact:
    path.mkdir(parents=True, exist_ok=True)
    return FakeArtifact(path=path, key=str(path))


def tokens_of(path: Path, lengths: list[int], width: int) -> FakeArtifact:
    """Random tokens, right padded with zeros to `width`."""
    result = folder(path)
    ids = torch.randint(3, 96, (len(lengths), width), generator=torch.Generator().manual_seed(2))
    for row, length in enumerate(lengths):
        ids[row, length:] = 0
    tensors = {"input_ids": ids.int(), "lengths": torch.tensor(lengths, dtype=torch.int32)}
    save_file(tensors, result.file("tokens.safetensors"))
    return result


def load_result(model: Tiny, path: Path) -> FakeArtifact:
    """A result of stage `load` that points at the files of a tiny model."""
    result = folder(path)
    weights = model.path / "model.safetensors"
    entry = {
        "name": weights.name,
        "path": str(weights),
        "size": weights.stat().st_size,
        "mtime_ns": None,
        "sha256": None,
    }
    result.write_json("source.json", {"kind": "safetensors", "files": [entry], "identity": "tiny"})
    (path / "model").mkdir()
    (path / "model" / "config.json").write_text(json.dumps(model.config))
    return result


def patch_result(blueprint: Blueprint, path: Path) -> FakeArtifact:
    result = folder(path)
    result.write_json(FILE, blueprint.to_json())
    return result


@dataclass
class Worker:
    """Runs tasks; like a worker of a runner it keeps resources from task to task."""

    root: Path
    resources: dict[str, Any] = field(default_factory=dict)

    def task(
        self,
        member: str,
        inputs: Mapping[str, FakeArtifact],
        outputs: Mapping[str, str],
        warn: Callable[[str], None] = print,
    ) -> Task:
        """`outputs`: output name -> folder below the root."""
        return Task(
            node_name=member,
            member=member,
            index=None,
            inputs=inputs,
            outputs={name: folder(self.root / path) for name, path in outputs.items()},
            scratch=folder(self.root / "scratch").path,
            progress=lambda fraction, text: None,
            warn=warn,
            resource=self.resource,
        )

    def resource(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.resources:
            self.resources[name] = make()
        return self.resources[name]
