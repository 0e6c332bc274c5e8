"""The stage `compress`: quantize one decoder layer's weights as the scheme says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipeline.key import Json, canonical
from pipeline.stage import Estimate, Parts, Site, Stage, Survey
from stages.compress.aimed.aim_plan import (
    ORIGINAL,
    aim_notes,
    aim_problem,
    aiming_cost,
    has_routed,
)
from stages.compress.config import CompressConfig, needed_statistics
from stages.compress.idle_modifiers import (
    experts_problem,
    idle_modifiers,
    idle_signs,
    profile_problem,
    rotation_problem,
    transform_notes,
    unsaid_rounding,
    with_pairs,
)
from stages.compress.layer_plan import (
    GRAM,
    UNROTATED,
    float16_revision,
    follows,
    formats_key,
    gram_is_all,
    layer_estimate,
    statistics_problem,
)
from stages.compress.learning.learning_plan import learner_of, learning_cost, learning_problem
from stages.compress.modifiers.rtn_route import (
    STORED,
    RoundedWeight,
    goes_straight,
    only_rounds,
)
from stages.compress.parts.parts_plan import joining_estimate, layer_parts, named_formats
from stages.model.artifact_names import ACTIVATIONS
from stages.model.blueprint import Blueprint
from stages.model.pairs.proven import PAIRS
from stages.model.proofs.proof_input import PROOF
from stages.schemes.chosen import CHOICE, guessed, settled
from stages.schemes.engine_support import engine_notes, engine_warnings, expert_warnings
from stages.schemes.idle import idle_parts
from stages.schemes.resolve import Resolution, Resolved, resolve
from stages.schemes.transformers_support import transformers_notes
from stages.weights.source import TensorSpec

LITTLE = 4_000_000_000
"""Bytes of memory up to which two layers are compressed at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """What is known of the layers once they are surveyed.

    `guessed`: their formats are yet to be chosen, and `formats` are for estimates. `straight`:
    weights are likely to go from file to file. `routed`: some are of routed experts. `memory`:
    bytes that the largest layer takes. `unrotated`: Gram matrices are those of the model before it
    was rotated.
    """

    blueprint: Blueprint
    formats: Resolution
    guessed: bool
    straight: bool
    routed: bool
    memory: int
    unrotated: bool = False


@dataclass(frozen=True, eq=False)
class Compress(Stage):
    """Output `weights`: shard.safetensors, layer.json and checksum.safetensors of one layer."""

    kind = "compress"
    version = 6
    Config = CompressConfig
    ahead = "stages.quantized.open"
    speeds = "stages.compress.layer.speeds"
    lighter = (
        "lower calibrate.memory, or compress layers in parts with "
        "graph.nodes.compress.params.part_parameters=200000000; neither changes a result"
    )
    outputs = ("weights",)
    config: CompressConfig
    layers: Layers | None = None

    @property
    def libraries(self) -> tuple[str, ...]:
        own = ("torch", "compressed-tensors", "numba")
        return own if self.config.runner is None else (*own, "transformers")

    @property
    def work(self) -> tuple[str, ...]:
        if self.config.part_parameters is not None:
            return ("stages.compress.run",)
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
        pairs = ("out",) if self.config.transforms else ()
        learns, aims = self.config.learner is not None, self.config.aimer is not None
        runs = learns or aims
        alone = aims and self.layers is not None and not self.layers.routed
        needed = needed_statistics(self.config, solved=not alone)
        unrotated = None if self.layers is None else self.layers.unrotated  # None: both, to ask
        turned = unrotated is not False and gram_is_all(self.config) and bool(needed)
        return {
            "statistics": () if unrotated else needed,
            UNROTATED: GRAM if turned else (),
            PAIRS: pairs,
            ACTIVATIONS: (ACTIVATIONS,) if runs else (),
            "target": (ACTIVATIONS,) if learns else (),
            ORIGINAL: (ACTIVATIONS,) if aims else (),
            "tokens": ("out",) if runs else (),
            PROOF: ("out",) if runs else (),
            "outliers": ("out",) if self.config.profile else (),
        }

    def survey(self, site: Site) -> Survey:
        blueprint = site.facts.get("model")
        if not isinstance(blueprint, Blueprint):
            return Survey()
        problem = experts_problem(self.config, site.facts)
        if problem := problem or statistics_problem(self.config, site.facts, blueprint):
            return Survey(problems=(problem,))
        if problem := profile_problem(self.config, site.facts):
            return Survey(problems=(problem,))
        if problem := rotation_problem(self.config, blueprint):
            return Survey(problems=(problem,))
        learner = learner_of(blueprint, self.config.learner)
        if learner is not None and (problem := learning_problem(learner, site.facts)):
            return Survey(problems=(problem,))
        if self.config.aimer is not None and (
            problem := aim_problem(self.config.aimer, site.facts, blueprint)
        ):
            return Survey(problems=(problem,))
        config = settled(self.config, site)
        found = resolve(config.scheme, blueprint)
        streams, straight = _goes_straight(config, site, blueprint, found.modules)
        idle = idle_parts(config.scheme, blueprint, found.modules)
        problems, keeper = (*found.problems, *idle), config.keeper
        paired: Blueprint | None = blueprint
        if not problems:
            paired = with_pairs(config, site, blueprint)
            problems = (*idle_modifiers(config, paired, found), *idle_signs(config, found))
        if keeper is not None and not problems and keeper.on_failure == "error":
            from stages.compress.modifiers.keep_check import unkeepable

            problems = tuple(unkeepable(site, blueprint, found))
        estimates: dict[str | None, Estimate] = {
            layer.name: layer_estimate(
                config, layer, found.modules, blueprint.dtype, streams=streams
            )
            for layer in (() if problems else blueprint.layers)
        }
        if learner is not None:
            device, tokens = config.numerics.device, site.facts.get("tokens")
            for layer in () if problems else blueprint.layers:
                estimates[layer.name] = learning_cost(
                    estimates[layer.name], learner, layer, found.modules, tokens, device=device
                )
        if config.aimer is not None:
            tokens = site.facts.get("tokens")
            for layer in () if problems else blueprint.layers:
                estimates[layer.name] = aiming_cost(
                    estimates[layer.name],
                    layer,
                    found.modules,
                    tokens,
                    device=config.numerics.device,
                )
        parts = None if problems else layer_parts(config, blueprint, found.modules)
        if parts is not None:
            estimates |= {n: joining_estimate(estimates[n]) for n in parts.names if n is not None}
        layers = Layers(
            blueprint=blueprint,
            formats=found,
            guessed=guessed(site),
            straight=straight,
            routed=has_routed(blueprint, found.modules),
            memory=max((estimate.memory for estimate in estimates.values()), default=0),
            unrotated=follows(self.config, site.facts),
        )
        return Survey(
            facts=blueprint,
            problems=problems,
            warnings=(
                *found.warnings,
                *engine_warnings(config.scheme),
                *expert_warnings(blueprint),
                *unsaid_rounding(config),
            ),
            notes=(
                *transform_notes(config, pending=paired is None),
                *aim_notes(config, blueprint, found.modules),
                *engine_notes(config.scheme),
                *transformers_notes(found.modules, blueprint),
            ),
            estimates=estimates,
            settled=(settled_self := replace(self, config=config, layers=layers)),
            parts=None if parts is None else settled_self._keyed(parts),
        )

    def _keyed(self, parts: Parts) -> Parts:
        """The parts with what the scheme says of the modules of each alone."""
        if self.layers is None:
            return parts
        formats = self.layers.formats.modules
        said = {
            (member, name): self._said(named_formats(name, formats))
            for member, names in parts.names.items()
            for name in names
        }
        return replace(parts, semantics=said)

    def semantics(self, member: str | None) -> Json:
        """What the scheme says of this layer's own modules, not of others."""
        layers = self.layers
        scheme: Json = canonical(self.config.scheme)
        if layers is not None and member is not None:
            scheme = formats_key(layers.blueprint.layer(member).linears, layers.formats.modules)
        return self._said(scheme)

    def _said(self, scheme: Json) -> Json:
        """What decides the bytes of modules whose formats `scheme` says."""
        config, layers = self.config, self.layers
        return {
            "scheme": scheme,
            "modifiers": [modifier.semantics() for modifier in config.modifiers],
            "numerics": config.numerics_key(),
            **({"guessed": True} if layers is not None and layers.guessed else {}),
            **({} if layers is None else float16_revision(layers.blueprint.dtype)),
        }


def _goes_straight(
    config: CompressConfig, site: Site, blueprint: Blueprint, formats: Mapping[str, Resolved]
) -> tuple[bool, bool]:
    """Whether all layers are known to go straight from file to file, and whether they may.

    What is not known of the source's files is left open to the node that reads them.
    """
    facts = site.facts.get("source")
    tensors: Mapping[str, TensorSpec] | None = getattr(facts, "tensors", None)
    quantized = getattr(facts, "quantization", None) is not None
    known, possible = list[RoundedWeight](), list[RoundedWeight]()
    for layer in blueprint.layers:
        for own in layer.linears:
            if own.name not in formats:
                continue
            stored = tensors.get(layer.tensors.get(f"{own.name}.weight", "")) if tensors else None
            weight = RoundedWeight(
                scheme=formats[own.name].scheme,
                shape=(own.out_features, own.in_features),
                stored=None if stored is None or quantized else stored.dtype,
            )
            known.append(weight)
            open_yet = tensors is None and not quantized
            possible.append(replace(weight, stored=STORED) if open_yet else weight)
    how = (config.modifiers, config.numerics.device, blueprint.dtype)
    return goes_straight(*how, known), goes_straight(*how, possible)
