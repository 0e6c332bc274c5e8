"""Checkpoint under test: its tensors and config, and the original and layers to compare with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from pipeline.errors import UserError
from pipeline.stage import Artifact, Task
from stages.formats.layer_artifact import CACHE, LAYER
from stages.formats.quantization_config import Schemes, groups_from_config, quantized_prefixes
from stages.model.artifact_names import CHECKPOINT
from stages.model.blueprint import Blueprint
from stages.quantized.open import open_model
from stages.quantized.turned_source import TurnedSource
from stages.schemes.protocols import ModuleFormat
from stages.weights import TensorSpec, WeightSource, open_checkpoint
from stages.weights.aliased_source import Aliased
from stages.weights.safetensors_source import SafetensorsSource


@dataclass(frozen=True, kw_only=True, slots=True)
class Claims:
    """Method, status, schemes and ignored modules that a quantization_config states."""

    method: object
    status: object
    schemes: Sequence[ModuleFormat]
    ignore: Sequence[str]


class Stored(Protocol):
    """A checkpoint without the original: the part of `Subject` and `Folder` that checks share."""

    @property
    def folder(self) -> Path: ...

    @property
    def saved(self) -> WeightSource: ...

    @property
    def specs(self) -> Mapping[str, TensorSpec]: ...

    @property
    def quantized(self) -> Mapping[str, ModuleFormat]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A checkpoint, the original's tensors, and the compressed layers that it was made of.

    `blueprint` and `source` name the tensors as the checkpoint should; `untied`: lm_head and
    embedding were tied in the original and are not any more. `quantized` maps the checkpoint names
    of modules to the schemes that config.json gives them. `saved` and `specs` have weights that the
    disk has as [in, out] as [out, in], `on_disk` is as the files are. `plain`: compressed weights
    were to be saved dense, with their dequantized values. `caches` are the qparams of attention
    states.
    `codes`: compiled loops of our own read weights in plain formats.
    """

    folder: Path
    blueprint: Blueprint
    source: WeightSource
    original: Mapping[str, TensorSpec]
    saved: WeightSource
    specs: Mapping[str, TensorSpec]
    on_disk: Mapping[str, TensorSpec]
    settings: Mapping[str, Any]
    claims: Claims | None
    quantized: Mapping[str, ModuleFormat]
    layers: Sequence[Artifact]
    untied: bool
    plain: bool
    caches: Mapping[str, TensorSpec]
    codes: bool

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.blueprint.dtype)
        return dtype

    def chosen(self) -> set[str]:
        """Checkpoint names of the modules whose weights a solver chose."""
        return {m["prefix"] for info in self.layer_info() for m in info["modules"].values()}

    def layer_info(self) -> list[Mapping[str, Any]]:
        """The content of layer.json of every layer."""
        return [layer.json(LAYER) for layer in self.layers]


def subject_of(task: Task, codes: bool) -> Subject:
    """Open everything; UserError if the checkpoint cannot be read at all."""
    folder = task.inputs["checkpoint"].path / CHECKPOINT
    original = Blueprint.load(task.inputs["model"])
    layers = [task.inputs[f"layers/{index}"] for index in range(len(original.layers))]
    layers += [task.inputs[name] for name in ("outside",) if name in task.inputs]
    blueprint = original.saved({name for layer in layers for name in layer.json(LAYER)["modules"]})
    untied = original.tied and not blueprint.tied
    source: WeightSource = open_model(task.inputs["source"], original)
    if untied:
        source = Aliased(source, original.aliases())
    saved: WeightSource = open_checkpoint(folder)
    on_disk = saved.specs()
    if blueprint.turned:
        saved = TurnedSource(saved, blueprint.turned)
    try:
        settings = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"config.json of the checkpoint cannot be read: {error}") from error
    specs = saved.specs()
    given = settings.get("quantization_config")
    claims = None if given is None else claims_of(given, codes)
    schemes = Schemes(() if claims is None else claims.schemes)
    prefixes = quantized_prefixes(list(specs))
    return Subject(
        folder=folder,
        blueprint=blueprint,
        source=source,
        original=source.specs(),
        saved=saved,
        specs=specs,
        on_disk=on_disk,
        settings=settings,
        claims=claims,
        quantized={p: schemes.of(p) for p in prefixes} if claims else {},
        layers=layers,
        untied=untied,
        caches=_caches(task, len(original.layers)),
        codes=codes,
        plain=not task.inputs["checkpoint"].meta.get("compressed", True),
    )


def claims_of(config: Mapping[str, Any], codes: bool) -> Claims:
    """The claims of a quantization_config; UserError if it is invalid.

    compressed-tensors parses it, or with `codes` our own reader of configs written by presswork.
    """
    if codes:
        return Claims(
            method=config.get("quant_method"),
            status=config.get("quantization_status"),
            schemes=groups_from_config(config),
            ignore=config.get("ignore") or (),
        )
    from stages.formats.compressed_tensors_bridge import parse, schemes_in

    parsed = parse(config)
    return Claims(
        method=parsed.quant_method,
        status=parsed.quantization_status.value,
        schemes=schemes_in(parsed),
        ignore=parsed.ignore or (),
    )


def _caches(task: Task, layers: int) -> dict[str, TensorSpec]:
    names = [f"caches/{index}" for index in range(layers)]
    paths = [task.inputs[name].file(CACHE) for name in names if name in task.inputs]
    sources = [SafetensorsSource.of_file(path) for path in paths]
    return {name: spec for source in sources for name, spec in source.specs().items()}
