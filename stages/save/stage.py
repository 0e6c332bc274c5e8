"""Stage `save`: assemble compressed layers into a checkpoint folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

from pipeline.errors import UserError
from pipeline.key import Json, canonical
from pipeline.stage import Estimate, Site, Stage, Survey
from stages.compute.estimates import COMPRESS_PROCESS
from stages.compute.work import COPY, NODE
from stages.model.blueprint import DTYPE_BYTES, Blueprint
from stages.schemes.chosen import CHOICE, settled
from stages.schemes.resolve import resolve
from stages.schemes.scheme import SchemeConfig
from stages.schemes.sizes import layer_bytes

SECONDS = 2.0
TOKENS = "tokens"
"""The input of which only the name of the calibration data counts."""
COPY_RATE = 4e8
"""Bytes a second of copying, syncing and hashing, on a machine with a slow disk."""
COPIED, UNPACKED = 2, 12
"""Multiples of a tensor's size that a source needs: to hold two tensors, or to unpack one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SaveOptions:
    """`name` is the model's name in the model card; null: its architecture and format.

    `compressed` false writes dense weights with the values that compression chose. No file has
    more than `max_shard_bytes` of tensors, unless it has a single one; a model within that is one
    file. null: a file for each layer, a link to the layer's result, so that nothing is copied.
    """

    name: str | None = field(default=None, metadata={"lands": True})
    compressed: bool = True
    max_shard_bytes: int | None = field(default=5_000_000_000, metadata={"unit": "bytes"})

    def __post_init__(self) -> None:
        if self.max_shard_bytes is not None and self.max_shard_bytes < 1:
            raise UserError(
                f"save.max_shard_bytes is {self.max_shard_bytes}",
                remedy="give 1 or more, such as 5GB; null for a file for each layer",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SaveConfig:
    """The scheme that the layers were compressed with, and how to save them."""

    scheme: SchemeConfig = field(metadata={"lands": True})
    save: SaveOptions = field(default_factory=SaveOptions)
    """How the checkpoint is written."""
    data: str | None = field(default=None, metadata={"lands": True})
    """What the model card calls the calibration data; null: what the input `tokens` is called."""

    def __post_init__(self) -> None:
        if self.scheme.states() and not self.save.compressed:
            raise UserError(
                "save.compressed is false, but dense weights have no quantized attention states",
                remedy="leave out kv_cache and attention",
            )


@dataclass(frozen=True, eq=False)
class Save(Stage):
    """Output `out`: the folder `checkpoint/`; save.max_shard_bytes says what its files are."""

    kind = "save"
    version = 7
    libraries = ("compressed-tensors",)
    Config = SaveConfig
    work = ("stages.save.run",)
    speeds = "stages.compute.speeds"
    config: SaveConfig
    outside: bool = True
    """Whether anything outside the layers is compressed; until it is surveyed, it may be."""

    def consults(self) -> frozenset[str]:
        return frozenset({CHOICE, TOKENS})

    def demands(self) -> dict[str, tuple[str, ...]]:
        return {
            "layers": ("weights",),
            "outside": ("weights",) if self.outside else (),
            "caches": ("scales",) if self.config.scheme.states() else (),
        }

    def survey(self, site: Site) -> Survey:
        """Problems of the scheme are told by `compress`; here only the bytes beside its shards."""
        blueprint = site.facts.get("model")
        if not isinstance(blueprint, Blueprint):
            return Survey()
        if self.config.scheme.states() and "caches" not in site.facts:
            problem = UserError(
                "scheme.kv_cache and scheme.attention are calibrated, which this graph does not do",
                remedy="say graph=calibrated, or leave them out",
            )
            return Survey(problems=(problem,))
        config = settled(self.config, site)
        found = resolve(config.scheme, blueprint)
        if found.problems:
            return Survey()
        outside = any(end.name in found.modules for end in blueprint.ends())
        kept = {stored: name for name, stored in blueprint.outside.items()}
        width = DTYPE_BYTES[blueprint.dtype]
        sizes = [width * prod(blueprint.outside_shapes[name]) for name in kept.values()]
        size, memory = sum(sizes), COMPRESS_PROCESS + COPIED * max(sizes, default=0)
        if not config.save.compressed:
            linears = (own for layer in blueprint.layers for own in layer.linears)
            widest = max((own.in_features * own.out_features for own in linears), default=0)
            size += sum(layer.bytes for layer in blueprint.layers)
            memory += UNPACKED * width * widest
        elif config.save.max_shard_bytes is not None:
            formats = {name: resolved.scheme for name, resolved in found.modules.items()}
            layers = blueprint.layers
            size += sum(layer_bytes(layer, formats, blueprint.dtype) for layer in layers)
        estimate = Estimate(
            bytes=size,
            memory=memory,
            seconds=SECONDS + size / COPY_RATE,
            work={COPY: float(size), NODE: 1.0},
        )
        told = site.facts.get(TOKENS)
        if config.data is None and isinstance(told, Mapping):
            config = replace(config, data=str(told["dataset"]))
        stage = replace(self, config=config, outside=outside)
        return Survey(facts=blueprint, estimates={None: estimate}, settled=stage)

    def semantics(self, member: str | None) -> Json:
        """The order of the groups counts (the first match does), and the recipe repeats it."""
        del member
        return {"config": canonical(self.config), "order": list(self.config.scheme.groups)}
