"""Compress nodes of tiny real models, run without a graph or a store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.stage import Task
from stages.compress.stage import Compress, CompressConfig
from stages.model.blueprint import Blueprint, Subgraph
from tests.stages.formats.fakes import FakeArtifact
from tests.stages.model.tiny import Tiny

Inputs = dict[str, Tensor]


def inputs_of(
    layer: Subgraph, *, tokens: int = 256, seed: int = 0
) -> tuple[Inputs, dict[str, str]]:
    """Random inputs [tokens, in] with outlier channels by leader, and module -> leader."""
    generator = torch.Generator().manual_seed(seed)
    leaders: dict[tuple[str, int], str] = {}
    groups, found = {}, {}
    for linear in layer.linears:
        parent, _, leaf = linear.name.rpartition(".")
        key = (
            parent if leaf in ("o_proj", "down_proj") else parent.split(".experts")[0] + "+in",
            linear.in_features,
        )
        if leaf in ("o_proj", "down_proj"):
            key = (linear.name, 1)
        leader = leaders.setdefault(key, linear.name)
        groups[linear.name] = leader
        if leader not in found:
            x = torch.randn(tokens, linear.in_features, generator=generator)
            found[leader] = x * torch.rand(linear.in_features, generator=generator).exp() ** 3
    return found, groups


@dataclass
class Run:
    """What a node said while it ran."""

    warnings: list[str] = field(default_factory=list)
    artifacts: list[FakeArtifact] = field(default_factory=list)


def source_artifact(model: Tiny, folder: Path) -> FakeArtifact:
    """A result of `load` for a tiny model."""
    folder.mkdir(exist_ok=True)
    weights = model.path / "model.safetensors"
    size = weights.stat().st_size
    files = [{"name": weights.name, "path": str(weights), "size": size, "sha256": None}]
    artifact = FakeArtifact(path=folder)
    artifact.write_json("source.json", {"kind": "safetensors", "files": files, "identity": "tiny"})
    (folder / "model").mkdir(exist_ok=True)
    for name in ("config.json", "generation_config.json"):
        if (model.path / name).is_file():
            (folder / "model" / name).write_bytes((model.path / name).read_bytes())
    return artifact


def model_artifact(blueprint: Blueprint, folder: Path) -> FakeArtifact:
    """A result of `patch`."""
    folder.mkdir(exist_ok=True)
    artifact = FakeArtifact(path=folder)
    artifact.write_json("blueprint.json", blueprint.to_json())
    return artifact


def statistics(
    layer: Subgraph,
    folder: Path,
    kinds: tuple[str, ...],
    *,
    edit: Callable[[Inputs], None] | None = None,
    tokens: int = 256,
) -> dict[str, FakeArtifact]:
    """Results of `calibrate` for one layer, from :func:`inputs_of`."""
    found, groups = inputs_of(layer, tokens=tokens, seed=layer.index)
    if edit is not None:
        edit(found)
    measures: Mapping[str, Callable[[Tensor], Tensor]] = {
        "gram": lambda x: x.T @ x,
        "absmax": lambda x: x.abs().amax(dim=0),
        "absmean": lambda x: x.abs().mean(dim=0),
        "squares": lambda x: x.square().sum(dim=0),
        "rows": lambda x: x,
        "range": lambda x: torch.stack([torch.stack(half.aminmax()) for half in x.chunk(2)]),
    }
    artifacts = {}
    for kind in kinds:
        path = folder / f"{layer.index}.{kind}"
        path.mkdir(parents=True, exist_ok=True)
        values = {name: measures[kind](x) for name, x in found.items() if len(x)}
        save_file(values, path / f"{kind}.safetensors")
        counts = {name: len(x) for name, x in found.items()}
        meta = {"groups": groups, "tokens": counts}
        artifacts[kind] = FakeArtifact(path=path, key=uuid4().hex, meta=meta)
    return artifacts


def compress(
    model: Tiny,
    config: CompressConfig,
    folder: Path,
    *,
    layers: list[int] | None = None,
    edit: Callable[[Inputs], None] | None = None,
    tokens: int = 256,
) -> Run:
    """Run the compress nodes of a model's layers (all by default)."""
    folder.mkdir(parents=True, exist_ok=True)
    blueprint, stage, said = model.blueprint(), Compress(config), Run()
    source = source_artifact(model, folder / "load")
    patch = model_artifact(blueprint, folder / "patch")
    wanted = stage.demands()["statistics"]
    for index in range(len(blueprint.layers)) if layers is None else layers:
        layer = blueprint.layers[index]
        found = statistics(layer, folder / "statistics", wanted, edit=edit, tokens=tokens)
        inputs: dict[str, Any] = {"source": source, "model": patch}
        if len(found) == 1:
            inputs["statistics"] = next(iter(found.values()))
        else:
            inputs |= {f"statistics.{kind}": artifact for kind, artifact in found.items()}
        out = folder / f"layer{index}"
        out.mkdir(exist_ok=True)
        draft = FakeArtifact(path=out)
        stage.run(
            Task(
                node_name=f"compress[{index}]",
                member=layer.name,
                index=index,
                inputs=inputs,
                outputs={"weights": draft},
                scratch=folder,
                progress=lambda fraction, text: None,
                warn=said.warnings.append,
                resource=lambda name, make: make(),
            )
        )
        said.artifacts.append(draft)
    return said


def info(artifact: FakeArtifact) -> dict[str, Any]:
    """layer.json."""
    found: dict[str, Any] = json.loads((artifact.path / "layer.json").read_text())
    return found
