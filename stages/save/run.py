"""Run `save`: write a checkpoint's weights, config.json, small files, and provenance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import StageFailed
from pipeline.key import canonical
from pipeline.stage import Artifact, Task
from stages.formats.layer_artifact import CACHE, LAYER
from stages.formats.provenance import PROVENANCE, render
from stages.formats.quantization_config import QuantizedStates, quantization_config, untied
from stages.model.artifact_names import CHECKPOINT, MODEL
from stages.model.blueprint import Blueprint
from stages.quantized.catalog import INTERNAL
from stages.quantized.open import open_model
from stages.quantized.turned_source import TurnedSource
from stages.save.model_card import CARD, Card, model_card
from stages.save.shards import Part, file_part, parts_of, shard_part, write_shards
from stages.save.sizes import sizes
from stages.save.stage import SaveConfig
from stages.schemes.resolve import Resolved, resolve
from stages.weights import WeightSource
from stages.weights.aliased_source import Aliased

CONFIG = "config.json"


def run(config: SaveConfig, task: Task) -> None:
    """Write `checkpoint/` from the source, the blueprint and the compressed layers."""
    draft, blueprint = task.outputs["out"], Blueprint.load(task.inputs["model"])
    origin, layers = task.inputs["source"], layers_of(task, blueprint)
    resolved = done(config, blueprint, layers)
    form = blueprint.saved(resolved)
    source = Aliased(open_model(origin, blueprint), blueprint.aliases())
    specs = source.specs()
    folder = draft.path / CHECKPOINT
    folder.mkdir()
    quantized = {f"{end.prefix}.weight" for end in form.ends() if end.name in resolved}
    dense = [specs[name] for name in outside_names(form) if name not in quantized]
    caches = caches_of(task, blueprint)
    parts = [
        *parts_of(dense, source),
        *layer_parts(config, layers, blueprint.turned),
        *(file_part(cache.file(CACHE)) for cache in caches),
    ]
    written = write_shards(folder, parts, config.save.max_shard_bytes, task.progress)
    copy_small(origin.path / MODEL, folder)
    settings = dict(json.loads((origin.path / MODEL / CONFIG).read_bytes()))
    settings.pop("quantization_config", None)
    if (resolved or caches) and config.save.compressed:
        states = QuantizedStates(
            kv_cache=config.scheme.kv_cache,
            attention=config.scheme.attention,
            kinds=tuple(sorted({kind for cache in caches for kind in cache.meta["kinds"]})),
        )
        settings["quantization_config"] = quantization_config(resolved, form, states)
    if form.tied != blueprint.tied or (blueprint.rotation and blueprint.rotation.aliases):
        settings = untied(settings)
    _write_json(folder / CONFIG, settings)
    recipe = recipe_of(config, layers)
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    provenance = provenance_of(origin, task.inputs["model"], layers)
    draft.write_last(f"{CHECKPOINT}/{PROVENANCE}", partial(proven, provenance))
    rows = [row for layer in layers for row in layer.meta["result"]["layers"]]
    size = sizes(
        original=[specs[name] for name in original_names(blueprint)],
        written=written.bytes,
        compressed=config.save.compressed,
        blueprint=blueprint,
        rows=rows,
        source=origin.meta,
    )
    card = Card(
        name=config.save.name,
        architecture=blueprint.architecture,
        identity=str(origin.meta.get("identity", "")),
        license=origin.meta.get("license"),
        size=size,
        source_format=origin.meta.get("quantized"),
        dense=None if config.save.compressed else blueprint.dtype,
        rows=rows,
        fallbacks=[entry for layer in layers for entry in layer.meta["result"]["fallbacks"]],
        recipe=text,
        data=data_of(config.data, recipe),
        modifiers=[str(each["kind"]) for each in recipe.get("modifiers", ())],
    )
    (folder / CARD).write_text(model_card(card), encoding="utf-8")
    draft.meta["result"] = {"size": size}
    draft.meta["compressed"] = config.save.compressed


def layer_parts(
    config: SaveConfig, layers: Sequence[Artifact], turned: Collection[str]
) -> Iterator[Part]:
    """The tensors of the layers: as they are stored, or decompressed to dense weights.

    Weights `turned` become [in, out] again, as the original has them.
    """
    for layer in layers:
        if config.save.compressed and not turned:
            yield shard_part(layer.path)
            continue
        from stages.formats.compressed_layer import CompressedLayer

        made = CompressedLayer(layer)
        weights: WeightSource = made.shard if config.save.compressed else made.weights
        if turned:
            weights = TurnedSource(weights, turned)
        yield from parts_of(weights.specs().values(), weights)


def layers_of(task: Task, blueprint: Blueprint) -> list[Artifact]:
    """The compressed layers in the order of the model, then the modules outside the layers."""
    layers = [task.inputs[f"layers/{index}"] for index in range(len(blueprint.layers))]
    return [*layers, *(task.inputs[name] for name in ("outside",) if name in task.inputs)]


def caches_of(task: Task, blueprint: Blueprint) -> list[Artifact]:
    """The qparams of the attention states of every layer, if the scheme quantizes them."""
    names = (f"caches/{index}" for index in range(len(blueprint.layers)))
    return [task.inputs[name] for name in names if name in task.inputs]


def outside_names(blueprint: Blueprint) -> list[str]:
    """Checkpoint names of all tensors that belong to no decoder layer, each once."""
    inside = {name for layer in blueprint.layers for name in layer.tensors.values()}
    names = dict.fromkeys([*blueprint.outside.values(), *blueprint.carried])
    return [name for name in names if name not in inside]


def original_names(blueprint: Blueprint) -> list[str]:
    """Checkpoint names of all tensors of the original."""
    layers = (name for layer in blueprint.layers for name in layer.tensors.values())
    names = dict.fromkeys([*outside_names(blueprint), *layers])
    made = {} if blueprint.rotation is None else blueprint.rotation.aliases
    return [name for name in names if name not in blueprint.joins and name not in made]


def done(
    config: SaveConfig, blueprint: Blueprint, layers: Sequence[Artifact]
) -> dict[str, Resolved]:
    """The modules that are quantized: those that the scheme targets without fallbacks to dense."""
    asked = resolve(config.scheme, blueprint).checked()
    modules = {name for layer in layers for name in layer.json(LAYER)["modules"]}
    strangers = modules - asked.keys()
    if strangers:
        raise StageFailed(
            f"{min(strangers)} is compressed, but the scheme does not say so",
            remedy="give `save` and `compress` the same scheme in graph.nodes",
        )
    return {name: resolved for name, resolved in asked.items() if name in modules}


def copy_small(source: Path, target: Path) -> None:
    """Copy the model's small files: tokenizer, chat template, generation config, custom code."""
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.is_file() and str(name) not in (CONFIG, CARD, *INTERNAL):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)


def data_of(name: str | None, recipe: Mapping[str, Any]) -> str | None:
    """Calibration data: its name and how much of it was seen; None where nothing was calibrated."""
    calibration = recipe.get("calibration")
    if not calibration:
        return None
    seen = calibration.get("tokens")
    return (name or "data without a name") + (f", {seen} tokens" if seen else "")


def recipe_of(config: SaveConfig, layers: Sequence[Artifact]) -> dict[str, Any]:
    """Content of recipe.yaml: the scheme, every modifier in order, and the calibration data."""
    return {"scheme": canonical(config.scheme), **(layers[0].meta["recipe"] if layers else {})}


def provenance_of(source: Artifact, model: Artifact, layers: Sequence[Artifact]) -> dict[str, Any]:
    """Content of provenance.json: the identity of the original and the keys of all results."""
    return {
        "source": {name: source.meta.get(name) for name in ("identity", "architecture")},
        "keys": {
            "load": source.key,
            "patch": model.key,
            "compress": [layer.key for layer in layers],
        },
        "compressed_tensors": version("compressed-tensors"),
    }


def proven(content: Mapping[str, Any], hashes: Mapping[str, str]) -> str:
    """The text of provenance.json: `content`, and the sha256 of every file of the checkpoint."""
    start = f"{CHECKPOINT}/"
    inside = (name for name in hashes if name.startswith(start))
    return render(content, {name.removeprefix(start): hashes[name] for name in inside})


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
