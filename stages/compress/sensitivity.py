"""The stage `sensitivity`: what every candidate format would cost one decoder layer.

Nothing is compressed: a solver tries each candidate on some rows of each module, in the Gram metric
of the original model's inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pipeline.errors import UserError
from pipeline.key import Json, canonical
from pipeline.stage import Estimate, Site, Stage, Survey
from stages.compress.modifiers.base import Solver
from stages.compress.modifiers.rtn import Rtn
from stages.compute import gpu_estimates as gpu
from stages.compute.estimates import COMPRESS_PROCESS, CORE_FLOPS
from stages.compute.numerics import Numerics, summed
from stages.model.blueprint import Blueprint, Subgraph
from stages.schemes.candidates import Units, units_of
from stages.schemes.scheme import SchemeConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class SensitivityConfig:
    """Of the scheme: its candidates, where they go, and the solver that tries them."""

    scheme: SchemeConfig
    numerics: Numerics = field(default_factory=Numerics)

    @property
    def solver(self) -> Solver:
        """The modifier `scheme.solver`; rounding under the gram observer where none is given."""
        solver = self.scheme.solver
        return solver if isinstance(solver, Solver) else Rtn(observer="gram")

    def __post_init__(self) -> None:
        solver = self.scheme.solver
        if solver is not None and (not isinstance(solver, Solver) or solver.keeps):
            raise UserError(
                f"scheme.solver is {solver.kind!r}, which tries no format",
                remedy="say scheme.solver.kind=rtn or gptq",
            )
        self.solver.check_device(self.numerics.device)


@dataclass(frozen=True, eq=False)
class Sensitivity(Stage):
    """Output `out`: sensitivity.json with the error and the bits of every module and candidate.

    With an input `gradients` (of `gradient`) also with the damage: what is lost, in nats a token.
    """

    kind = "sensitivity"
    version = 3
    Config = SensitivityConfig
    libraries = ("torch", "compressed-tensors", "numba")
    work = ("stages.compress.sensitivity_run",)
    config: SensitivityConfig
    units: Units | None = None
    """What gets a format and the candidates for each, once it is surveyed."""

    def demands(self) -> dict[str, tuple[str, ...]]:
        return {"statistics": ("gram",), "gradients": ("fisher",)}

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
            "solver": self.config.solver.semantics(),
            "numerics": summed(self.config.numerics),
        }

    def _estimate(self, layer: Subgraph, units: Units) -> Estimate:
        seconds, widest, tried = 0.5, 0, 0
        for unit in units.units:
            if unit.layer == layer.name:
                widest = max(widest, *(linear.in_features for linear in unit.linears))
                passes = 200 + 4 * max(linear.in_features for linear in unit.linears)
                work = passes * unit.elements * len(unit.candidates)
                seconds += work / (CORE_FLOPS * self.config.numerics.threads)
                tried += unit.elements * len(unit.candidates)
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
