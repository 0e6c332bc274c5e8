"""The compress stage: one decoder layer's weights in the format that the scheme asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import UserError
from pipeline.graph import Estimate
from pipeline.key import Json, canonical
from pipeline.registry import Registry, choices
from pipeline.stage import Site, Stage, Survey
from stages.compress.modifiers.base import Modifier, Solver, Transform, check_order
from stages.compress.modifiers.rtn import only_rounds
from stages.compute.numerics import Numerics
from stages.model.blueprint import Blueprint, Subgraph
from stages.schemes.chosen import CHOICE, guessed, settled
from stages.schemes.engine_support import engine_notes, engine_warnings
from stages.schemes.layouts import goes_straight
from stages.schemes.resolve import Resolution, resolve
from stages.schemes.scheme import SchemeConfig
from stages.schemes.sizes import linear_bytes
from stages.weights.row_bands import streaming_bytes

STATISTICS = ("gram", "absmax", "range", "histogram")
LITTLE = 4_000_000_000
"""Bytes of memory up to which two layers are compressed at a time."""
FLOPS = 2e10  # of float32 products on one core, for estimates only


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressConfig:
    """A scheme, and how its numbers are found: transforms in order, then one solver (or rtn)."""

    scheme: SchemeConfig
    """The number format of weights and activations, and the modules it is for."""
    modifiers: tuple[Any, ...] = field(default=(), metadata={"components": "modifier"})
    """How the numbers are found: transforms in order, then one solver."""
    numerics: Numerics = field(default_factory=Numerics)

    def __post_init__(self) -> None:
        check_order(self.modifiers)
        transforms = [m.kind for m in self.modifiers if isinstance(m, Transform)]
        for name, group in self.scheme.ordered():
            inputs = group.input_activations
            if transforms and inputs is not None and inputs.observer not in (None, "static_minmax"):
                raise UserError(
                    f"{name}: input_activations.observer is {inputs.observer!r}, and "
                    f"{transforms[0]!r} changes the inputs after they were observed",
                    remedy="say observer: static_minmax",
                )


class Compress(Stage):
    """Output `weights`: shard.safetensors, layer.json and checksum.safetensors of one layer."""

    kind = "compress"
    version = 6
    Config = CompressConfig
    outputs = ("weights",)
    libraries = ("torch", "compressed-tensors", "numba")
    config: CompressConfig

    def __init__(self, config: CompressConfig) -> None:
        super().__init__(config)
        self._resolution: Resolution | None = None
        self._blueprint: Blueprint | None = None
        self._guessed = False
        self._straight = only_rounds(config.modifiers, config.numerics.device)
        self._memory = 0

    @property
    def work(self) -> tuple[str, ...]:
        whole = "stages.compress.run"
        return ("stages.compress.rtn_streaming", whole) if self._straight else (whole,)

    @property
    def beside(self) -> int:
        """Two while nothing is calibrated: one reads or writes while the other computes."""
        free = not self.demands()["statistics"] and self.config.numerics.device == "cpu"
        return 2 if free and 0 < self._memory <= LITTLE else 1

    def consults(self) -> frozenset[str]:
        return frozenset({CHOICE})

    def demands(self) -> dict[str, tuple[str, ...]]:
        if self._keeper is not None:
            return {"statistics": ()}
        needed: set[str] = set()
        groups = self.config.scheme.formats()
        modifiers: tuple[Modifier, ...] = self.config.modifiers
        if groups:
            needed.update(kind for m in modifiers for kind in m.statistics())
        observed = {g.input_activations.statistic for g in groups if g.input_activations}
        needed |= {kind for kind in observed if kind is not None}
        if "range" in needed and any(isinstance(m, Transform) for m in modifiers):
            needed.add("absmax")  # what becomes of a range is known from the channels
        known = tuple(kind for kind in STATISTICS if kind in needed)
        return {"statistics": (*known, *sorted(needed.difference(STATISTICS)))}

    def survey(self, site: Site) -> Survey:
        blueprint = site.facts.get("model")
        if not isinstance(blueprint, Blueprint):
            return Survey()
        if lack := self._unknown() or self._lack(site, blueprint):
            return Survey(problems=(lack,))
        self.config, self._guessed = settled(self.config, site), guessed(site)
        found = resolve(self.config.scheme, blueprint)
        self._blueprint, self._resolution = blueprint, found
        if blueprint.dtype != "bfloat16" or not all(
            goes_straight(found.modules[own.name].scheme, (own.out_features, own.in_features))
            for layer in blueprint.layers
            for own in layer.linears
            if own.name in found.modules
        ):
            self._straight = False
        streams = self._straight and _plain_files(site, blueprint, found)
        problems = found.problems
        keeper = self._keeper
        if keeper is not None and not problems and keeper.on_failure == "error":
            from stages.compress.keep_check import unkeepable

            problems = tuple(unkeepable(site, blueprint, found))
        estimates: dict[str | None, Estimate] = {
            layer.name: self._estimate(layer, found, blueprint.dtype, streams=streams)
            for layer in (() if problems else blueprint.layers)
        }
        self._memory = max((estimate.memory for estimate in estimates.values()), default=0)
        return Survey(
            facts=blueprint,
            problems=problems,
            warnings=(*found.warnings, *engine_warnings(self.config.scheme)),
            notes=tuple(engine_notes(self.config.scheme)),
            estimates=estimates,
        )

    @property
    def _keeper(self) -> Solver | None:
        """The solver that takes over what the source is quantized to, if that is asked for."""
        return next((m for m in self.config.modifiers if isinstance(m, Solver) and m.keeps), None)

    def _lack(self, site: Site, blueprint: Blueprint) -> UserError | None:
        """What is wrong where statistics are wanted that nobody can gather."""
        if not self.demands()["statistics"] or (
            "statistics" in site.facts and not blueprint.outlined
        ):
            return None
        wants = [f"modifier {m.kind}" for m in self.config.modifiers if m.statistics()]
        wants += [
            f"the calibrated input_activations of {name}"
            for name, group in self.config.scheme.ordered()
            if group.input_activations is not None and group.input_activations.calibrated
        ]
        why = blueprint.outlined or "nothing in this graph measures them"
        return UserError(
            f"statistics of activations are needed for {' and '.join(wants)}, but {why}",
            remedy="say modifier=rtn with observer minmax or mse, and a scheme without calibrated "
            "inputs (such as fp8_dynamic, w4a16, nvfp4a16); or graph=calibrated, for a model that "
            "transformers knows",
        )

    def _unknown(self) -> UserError | None:
        """What is wrong with the statistics beyond the shipped ones that modifiers ask for."""
        asked = set(self.demands()["statistics"]).difference(STATISTICS)
        kinds = Registry.load().kinds("statistic") if asked else ()
        strange = sorted(asked.difference(kinds))
        transforms = [m.kind for m in self.config.modifiers if isinstance(m, Transform)]
        solver = next((m for m in self.config.modifiers if isinstance(m, Solver)), None)
        if not strange and transforms and solver and asked.intersection(solver.statistics()):
            return UserError(
                f"modifier {solver.kind} asks for {', '.join(sorted(asked))}, gathered before "
                f"{transforms[0]} changes the inputs",
                remedy="leave one of the two modifiers out",
            )
        if not strange:
            return None
        wants = [m.kind for m in self.config.modifiers if strange[0] in m.statistics()]
        return UserError(
            f"modifier {wants[0]} asks for the statistic {strange[0]!r}, which nobody gives",
            remedy=choices(strange[0], kinds),
        )

    def semantics(self, member: str | None) -> Json:
        """What the scheme says of this layer's own modules, not of others."""
        config = self.config
        scheme: Json = canonical(config.scheme)
        if self._resolution is not None and self._blueprint is not None and member is not None:
            layer = self._blueprint.layer(member)
            scheme = {
                linear.name: canonical(self._resolution.modules[linear.name].scheme)
                | {"targets": []}
                for linear in layer.linears
                if linear.name in self._resolution.modules
            }
        return {
            "scheme": scheme,
            "modifiers": [modifier.semantics() for modifier in config.modifiers],
            "numerics": canonical(config.numerics),
            **({"guessed": True} if self._guessed else {}),
        }

    def _estimate(
        self, layer: Subgraph, found: Resolution, dtype: str, *, streams: bool
    ) -> Estimate:
        size, seconds, widest, largest = layer.bytes, 0.5, 0, 0
        solved = any(isinstance(m, Solver) and m.statistics() for m in self.config.modifiers)
        for linear in layer.linears:
            if linear.name not in found.modules:
                continue
            elements = linear.in_features * linear.out_features
            plain = layer.bytes * elements // max(1, layer.parameters)
            size += linear_bytes(linear, found.modules[linear.name].scheme, dtype) - plain
            passes = 12 * linear.in_features if solved else 200
            seconds += passes * elements / (FLOPS * self.config.numerics.threads)
            widest, largest = max(widest, linear.in_features), max(largest, elements)
        if streams:
            memory = streaming_bytes(2 * largest)
        else:
            grams = 24 * widest * widest if self.demands()["statistics"] else 0
            memory = 700_000_000 + 2 * layer.bytes + 4 * layer.parameters + grams
        return Estimate(bytes=size, memory=memory, seconds=seconds)


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
