"""Run `reap`: choose the experts of every layer, and describe the model that has them alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline.stage import Artifact, Task
from stages.model.artifact_names import MODEL, SALIENCY
from stages.model.blueprint import Blueprint
from stages.model.experts.saliency import kept_experts
from stages.model.structure.expert_places import (
    ExpertPlaces,
    expert_places,
    experts_of,
    fewer_experts,
)
from stages.model.structure.fewer_experts import Counts
from stages.quantized.open import open_source
from stages.weights.source_manifest import SourceFile, SourceManifest
from stages.weights.writer import link

if TYPE_CHECKING:
    from stages.patch.reap import ReapConfig

CONFIG = "config.json"


def run(config: ReapConfig, task: Task) -> None:
    """Write source.json and `model/` as `load` does, and tell which experts stay."""
    source, draft = task.inputs["source"], task.outputs["out"]
    blueprint = Blueprint.load(task.inputs["model"])
    before = experts_of(blueprint)
    counts = Counts.of(blueprint.config, before)
    left = counts.left(config.sparsity)
    places = expert_places(blueprint, left)
    rows = rows_of(task, blueprint, places, left, counts.groups)
    kept = {row["name"]: row["kept"] for row in rows}
    shutil.copytree(source.path / MODEL, draft.path / MODEL)
    settings = fewer_experts(source.json(f"{MODEL}/{CONFIG}"), before, left)
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    (draft.path / MODEL / CONFIG).write_text(text + "\n", encoding="utf-8")
    manifest = SourceManifest.load(source)
    replace(
        manifest,
        files=tuple(carried(file, source, draft.path) for file in manifest.files),
        settings={**manifest.settings, "selection": places.select(kept).to_json()},
    ).write(draft)
    draft.meta.update(source.meta)
    draft.meta["experts"] = left
    draft.meta["whole_bytes"] = sum(spec.bytes for spec in open_source(source).specs().values())
    draft.meta["result"] = {"experts": rows}
    if places.extra:
        task.warn(
            f"{len(places.extra)} tensors of layers of extra predictions are left out: they have "
            f"experts of their own, which nothing measured ({places.extra[0]})"
        )


def rows_of(
    task: Task, blueprint: Blueprint, places: ExpertPlaces, left: int, groups: int
) -> list[dict[str, Any]]:
    """For every layer with experts its name, their saliency and tokens, and which are kept."""
    numbers = {name: index for index, name in enumerate(blueprint.members)}
    rows, unseen = [], {}
    for layer in places.layers:
        found = task.inputs[f"layers/{numbers[layer.layer]}"].json(f"{SALIENCY}.json")
        values = torch.tensor(found["values"], dtype=torch.float64)
        kept = kept_experts(values, left, groups)
        if blind := [expert for expert in kept if not found["tokens"][expert]]:
            unseen[layer.layer] = len(blind)
        rows.append({"name": layer.layer, "experts": layer.experts, "kept": kept, **found})
    if unseen:
        name = next(iter(unseen))
        task.warn(
            f"no token was routed to {unseen[name]} of the experts that are kept in {name}"
            f"{f' and {len(unseen) - 1} more layers' if len(unseen) > 1 else ''}: calibrate with "
            "more samples, or prune more"
        )
    return rows


def carried(file: SourceFile, source: Artifact, folder: Path) -> SourceFile:
    """A weight file as it is described; one that the source carries itself is linked along."""
    if Path(file.path).is_absolute():
        return file
    target = folder / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    link(source.path / file.path, target)
    return file
