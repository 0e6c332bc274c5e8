"""The stage `sensitivity`: what every candidate format would cost one decoder layer.

Nothing is compressed: the run's own modifiers try each candidate on some rows of each module, in
the Gram metric of the original model's inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.errors import UserError
from pipeline.key import Json, canonical
from pipeline.stage import Estimate, Site, Stage, Survey
from stages.compress.config import CompressConfig, needed_statistics
from stages.compress.idle_modifiers import with_pairs
from stages.compress.layer_plan import solving_seconds
from stages.compress.modifiers.base import ExpertPruner, Modifier, Rotation, Solver
from stages.compress.modifiers.rtn import Rtn
from stages.compute import gpu_estimates as gpu
from stages.compute.estimates import COMPRESS_PROCESS
from stages.compute.numerics import Numerics, summed
from stages.model.blueprint import Blueprint, Subgraph
from stages.model.pairs.proven import PAIRS
from stages.schemes.candidates import Units, units_of
from stages.schemes.scheme import SchemeConfig

ROWS = 256
"""Rows of a weight that are tried, evenly spaced. The error of a row is within some tens of per
cent of that of another, so the mean of so many is within a few per cent of that of all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SensitivityConfig:
    """Of the scheme: its candidates, and where they go; and what chooses weights."""

    scheme: SchemeConfig
    modifiers: tuple[Any, ...] = field(default=(), metadata={"components": "modifier"})
    """Those of the run, which try the candidates unless `scheme.solver` does."""
    numerics: Numerics = field(default_factory=Numerics)

    @property
    def tries(self) -> CompressConfig:
        """What is done to a layer in each candidate. Raises UserError where it cannot be."""
        return CompressConfig(scheme=self.scheme, modifiers=self.trying, numerics=self.numerics)

    @property
    def trying(self) -> tuple[Modifier, ...]:
        """The transforms, the pruner and the solver that are tried.

        One that learns by running the layer does as far as what it starts from.
        """
        given = (self.scheme.solver,) if self.scheme.solver is not None else self.modifiers
        local: list[Modifier] = []
        for modifier in given:
            if isinstance(modifier, Solver) and (modifier.learns or modifier.aims):
                local.append(modifier.outside())
            elif not isinstance(modifier, ExpertPruner | Rotation):
                local.append(modifier)
        if not any(isinstance(modifier, Solver) for modifier in local):
            local.append(Rtn())
        return tuple(local)

    @property
    def solver(self) -> Solver:
        """The one that is tried."""
        return next(modifier for modifier in self.trying if isinstance(modifier, Solver))

    def __post_init__(self) -> None:
        given = self.scheme.solver
        tries_none = given if not isinstance(given, Solver | None) else self.tries.keeper
        if tries_none is not None:
            named = "modifier" if given is None else "scheme.solver"
            raise UserError(
                f"{named} is {tries_none.kind!r}, which tries no format",
                remedy="say rtn or gptq, as in modifier=gptq",
            )


@dataclass(frozen=True, eq=False)
class Sensitivity(Stage):
    """Output `out`: sensitivity.json with the error and the bits of every module and candidate.

    With an input `gradients` (of `gradient`) also with the damage: what is lost, in nats a token.
    """

    kind = "sensitivity"
    version = 4
    Config = SensitivityConfig
    libraries = ("torch", "compressed-tensors", "numba")
    work = ("stages.compress.sensitivity_run",)
    config: SensitivityConfig
    units: Units | None = None
    """What gets a format and the candidates for each, once it is surveyed."""

    def demands(self) -> dict[str, tuple[str, ...]]:
        tries = self.config.tries
        inputs = any(group.input_activations is not None for group in tries.scheme.formats())
        needed = {"gram", *needed_statistics(tries), *(("rows",) if inputs else ())}
        return {
            "statistics": tuple(sorted(needed)),
            "gradients": ("fisher",),
            PAIRS: ("out",) if tries.transforms else (),
        }

    def survey(self, site: Site) -> Survey:
        blueprint = site.facts.get("model")
        if not self.config.scheme.candidates:
            problem = UserError(
                "this graph chooses formats, but the scheme names no candidates",
                remedy="say scheme=auto, or leave graph=budget out",
            )
            return Survey(problems=(problem,))
        if not isinstance(blueprint, Blueprint):
            return Survey()
        with_pairs(self.config.tries, site, blueprint)
        units = units_of(self.config.scheme, blueprint)
        costs: dict[str | None, Estimate] = {
            layer.name: self._estimate(layer, units) for layer in blueprint.layers
        }
        settled = replace(self, units=units)
        return Survey(facts=units, problems=units.problems, estimates=costs, settled=settled)

    def semantics(self, member: str | None) -> Json:
        """The formats that fit this layer's own modules, and how they are tried."""
        units = () if self.units is None else self.units.units
        mine = {
            linear.name: sorted(unit.candidates)
            for unit in units
            if unit.layer == member
            for linear in unit.linears
        }
        tried = {name for names in mine.values() for name in names}
        formats = {} if self.units is None else self.units.formats
        return {
            "modules": mine,
            "formats": {name: canonical(group) for name, group in formats.items() if name in tried},
            "modifiers": [modifier.semantics() for modifier in self.config.trying],
            "numerics": summed(self.config.numerics),
        }

    def _estimate(self, layer: Subgraph, units: Units) -> Estimate:
        tries, widest, tried, seconds = self.config.tries, 0, 0, 0.5
        solved = any(isinstance(m, Solver) and m.statistics() for m in tries.modifiers)
        for unit in units.units:
            if unit.layer == layer.name:
                widest = max(widest, *(linear.in_features for linear in unit.linears))
                tried += unit.elements * len(unit.candidates)
                for linear in unit.linears:
                    share = min(1.0, ROWS / linear.out_features)
                    each = share * solving_seconds(tries, linear, solved=solved)
                    seconds += each * len(unit.candidates)
        memory = COMPRESS_PROCESS + 2 * layer.bytes + 8 * widest * widest + 4 * layer.parameters
        cost = Estimate(bytes=4096, memory=memory, seconds=seconds)
        if self.config.numerics.device == "cpu":
            return cost
        return replace(
            cost,
            memory=COMPRESS_PROCESS + gpu.CUDA_PROCESS + 2 * layer.bytes,
            seconds=gpu.LAYER_SECONDS + gpu.ROUND_SECONDS * tried,
            device_memory=layer.bytes + 8 * widest * widest + 4 * layer.parameters,
        )
