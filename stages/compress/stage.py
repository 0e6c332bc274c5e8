"""The stage `compress`: one decoder layer's weights in the format that the scheme asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.key import Json, canonical
from pipeline.stage import Estimate, Site, Stage, Survey
from stages.compress.config import CompressConfig, needed_statistics
from stages.compress.layer_plan import formats_key, layer_estimate, statistics_problem
from stages.compress.modifiers.rtn import only_rounds
from stages.model.blueprint import Blueprint
from stages.schemes.chosen import CHOICE, guessed, settled
from stages.schemes.engine_support import engine_notes, engine_warnings
from stages.schemes.layouts import goes_straight
from stages.schemes.resolve import Resolution, resolve

LITTLE = 4_000_000_000
"""Bytes of memory up to which two layers are compressed at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """What is known of the layers once they are surveyed.

    `guessed`: their formats are yet to be chosen, and `formats` are for estimates. `straight`:
    weights are likely to go from file to file. `memory`: bytes that the largest layer takes.
    """

    blueprint: Blueprint
    formats: Resolution
    guessed: bool
    straight: bool
    memory: int


@dataclass(frozen=True, eq=False)
class Compress(Stage):
    """Output `weights`: shard.safetensors, layer.json and checksum.safetensors of one layer."""

    kind = "compress"
    version = 6
    Config = CompressConfig
    outputs = ("weights",)
    libraries = ("torch", "compressed-tensors", "numba")
    config: CompressConfig
    layers: Layers | None = None

    @property
    def work(self) -> tuple[str, ...]:
        rounds = only_rounds(self.config.modifiers, self.config.numerics.device)
        straight = rounds if self.layers is None else self.layers.straight
        whole = "stages.compress.run"
        return ("stages.compress.rtn_streaming", whole) if straight else (whole,)

    @property
    def beside(self) -> int:
        """Two while nothing is calibrated: one reads or writes while the other computes."""
        free = not needed_statistics(self.config) and self.config.numerics.device == "cpu"
        memory = 0 if self.layers is None else self.layers.memory
        return 2 if free and 0 < memory <= LITTLE else 1

    def consults(self) -> frozenset[str]:
        return frozenset({CHOICE})

    def demands(self) -> dict[str, tuple[str, ...]]:
        return {"statistics": needed_statistics(self.config)}

    def survey(self, site: Site) -> Survey:
        blueprint = site.facts.get("model")
        if not isinstance(blueprint, Blueprint):
            return Survey()
        if problem := statistics_problem(self.config, site.facts, blueprint):
            return Survey(problems=(problem,))
        config = settled(self.config, site)
        found = resolve(config.scheme, blueprint)
        straight = (
            only_rounds(config.modifiers, config.numerics.device)
            and blueprint.dtype == "bfloat16"
            and all(
                goes_straight(found.modules[own.name].scheme, (own.out_features, own.in_features))
                for layer in blueprint.layers
                for own in layer.linears
                if own.name in found.modules
            )
        )
        streams = straight and _plain_files(site, blueprint, found)
        problems, keeper = found.problems, config.keeper
        if keeper is not None and not problems and keeper.on_failure == "error":
            from stages.compress.keep_check import unkeepable

            problems = tuple(unkeepable(site, blueprint, found))
        estimates: dict[str | None, Estimate] = {
            layer.name: layer_estimate(
                config, layer, found.modules, blueprint.dtype, streams=streams
            )
            for layer in (() if problems else blueprint.layers)
        }
        layers = Layers(
            blueprint=blueprint,
            formats=found,
            guessed=guessed(site),
            straight=straight,
            memory=max((estimate.memory for estimate in estimates.values()), default=0),
        )
        return Survey(
            facts=blueprint,
            problems=problems,
            warnings=(*found.warnings, *engine_warnings(config.scheme)),
            notes=tuple(engine_notes(config.scheme)),
            estimates=estimates,
            settled=replace(self, config=config, layers=layers),
        )

    def semantics(self, member: str | None) -> Json:
        """What the scheme says of this layer's own modules, not of others."""
        config, layers = self.config, self.layers
        scheme: Json = canonical(config.scheme)
        if layers is not None and member is not None:
            scheme = formats_key(layers.blueprint.layer(member).linears, layers.formats.modules)
        return {
            "scheme": scheme,
            "modifiers": [modifier.semantics() for modifier in config.modifiers],
            "numerics": canonical(config.numerics),
            **({"guessed": True} if layers is not None and layers.guessed else {}),
        }


def _plain_files(site: Site, blueprint: Blueprint, found: Resolution) -> bool:
    """Whether the source is known to hold what will be quantized as bfloat16 in plain files."""
    facts = site.facts.get("source")
    tensors: Mapping[str, Any] | None = getattr(facts, "tensors", None)
    if tensors is None or getattr(facts, "quantization", None) is not None:
        return False
    names = [
        layer.tensors.get(f"{own.name}.weight", "")
        for layer in blueprint.layers
        for own in layer.linears
        if own.name in found.modules
    ]
    return all(name in tensors and tensors[name].dtype == "BF16" for name in names)
