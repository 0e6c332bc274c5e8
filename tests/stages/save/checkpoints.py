"""Saved checkpoints of tiny models: the nodes compress, save and verify run without a graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.stage import Stage, Task
from stages.compress.stage import CompressConfig
from stages.save.stage import Save, SaveConfig, SaveOptions
from stages.schemes.scheme import SchemeConfig
from tests.stages.compress.layers import Run, compress, model_artifact, source_artifact
from tests.stages.formats.fakes import FakeArtifact
from tests.stages.model.tiny import Tiny

WIDE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "head_dim": 32,
    "num_hidden_layers": 2,
}
EXPERTS: dict[str, Any] = {**WIDE, "moe_intermediate_size": 128, "mlp_only_layers": []}


@dataclass
class Saved:
    """A checkpoint and the results that it came from."""

    model: Tiny
    inputs: dict[str, Any]
    artifact: FakeArtifact
    layers: Run
    warnings: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.artifact.path / "checkpoint"

    @property
    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = self.artifact.meta["result"]
        return found


def save(
    model: Tiny,
    scheme: SchemeConfig,
    folder: Path,
    modifiers: tuple[Any, ...] = (),
    **options: Any,
) -> Saved:
    """Compress and save a model; `options` are those of SaveOptions."""
    config = CompressConfig(scheme=scheme, modifiers=modifiers)
    layers = compress(model, config, folder / "compress")
    inputs: dict[str, Any] = {
        "source": source_artifact(model, folder / "load"),
        "model": model_artifact(model.blueprint(), folder / "patch"),
    }
    inputs |= {f"layers/{index}": artifact for index, artifact in enumerate(layers.artifacts)}
    out = FakeArtifact(path=folder / "save")
    out.path.mkdir()
    run(Save(SaveConfig(scheme=scheme, save=SaveOptions(**options))), inputs, out, folder)
    return Saved(model=model, inputs=inputs, artifact=out, layers=layers)


def run(stage: Stage, inputs: dict[str, Any], out: FakeArtifact, folder: Path) -> list[str]:
    """Run a single-node stage; returns its warnings."""
    warnings: list[str] = []
    stage.run(
        Task(
            node_name=stage.kind,
            member=None,
            index=None,
            inputs=inputs,
            outputs={"out": out},
            scratch=folder,
            progress=lambda fraction, text: None,
            warn=warnings.append,
            resource=lambda name, make: make(),
        )
    )
    out.finish()
    return warnings
