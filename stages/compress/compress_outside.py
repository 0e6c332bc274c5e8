"""The stage `compress_outside`: the lm_head, the embedding, and what else a scheme names outside.

They are compressed like a layer whose inputs are those of the lm_head. An embedding looks rows up,
so there is no Gram matrix to solve in: its codes are the nearest ones, under scales that minimise
the weight's own squared error unless the modifier is rtn, which keeps its observer.
"""

from __future__ import annotations

from pipeline.errors import UserError
from pipeline.graph import Estimate
from pipeline.key import Json, canonical
from pipeline.stage import Site, Survey
from stages.compress.modifiers.base import Modifier, Solver
from stages.compress.modifiers.observer import needs_gram
from stages.compress.modifiers.rtn import Rtn
from stages.compress.stage import FLOPS, Compress, CompressConfig
from stages.model.blueprint import EMBEDDING, Blueprint
from stages.schemes.resolve import Resolved, resolve
from stages.schemes.sizes import linear_bytes


class CompressOutside(Compress):
    """Output `weights`: as that of `compress`, of the quantized modules outside the layers."""

    kind = "compress_outside"
    version = 4

    @property
    def work(self) -> tuple[str, ...]:
        return ("stages.compress.compress_outside_run",)

    def demands(self) -> dict[str, tuple[str, ...]]:
        """What calibration must tell, once the scheme is known to quantize the lm_head."""
        if self._blueprint is not None and self._blueprint.head not in self._mine():
            return {"statistics": ()}
        kinds = super().demands()["statistics"]
        return {"statistics": tuple(kind for kind in kinds if kind != "absmax")}

    def survey(self, site: Site) -> Survey:
        """Problems of the scheme are told by `compress`."""
        super().survey(site)
        blueprint = self._blueprint
        if blueprint is None or self._resolution is None or self._resolution.problems:
            return Survey()
        mine = self._mine()
        blind = [
            linear.name
            for linear in blueprint.outside_linears
            if linear.name in mine and linear.name != blueprint.head and self._measures()
        ]
        if blind:
            problem = UserError(
                f"{', '.join(blind[:4])}: calibration sees the decoder layers and the lm_head "
                "only, so there is no Gram matrix for them",
                remedy="put them in scheme.ignore, or say modifier=rtn",
            )
            return Survey(problems=(problem,))
        return Survey(facts=blueprint, estimates={None: self._cost(blueprint, mine)})

    def semantics(self, member: str | None) -> Json:
        del member
        return {
            "scheme": {
                name: canonical(resolved.scheme) | {"targets": []}
                for name, resolved in self._mine().items()
            },
            "modifiers": [m.semantics() for m in solvers_of(self.config)],
            "numerics": canonical(self.config.numerics),
        }

    def _mine(self) -> dict[str, Resolved]:
        if self._blueprint is None:
            return {}
        found = resolve(self.config.scheme, self._blueprint).modules
        ends = {end.name for end in self._blueprint.ends()}
        return {name: resolved for name, resolved in found.items() if name in ends}

    def _measures(self) -> bool:
        return any("gram" in m.statistics() for m in solvers_of(self.config))

    def _cost(self, blueprint: Blueprint, mine: dict[str, Resolved]) -> Estimate:
        part = blueprint.outside_part(mine)
        size, seconds = 0, 0.5
        for linear in part.linears:
            elements = linear.in_features * linear.out_features
            size += linear_bytes(linear, mine[linear.name].scheme, blueprint.dtype)
            solved = self._measures() and linear.kind != EMBEDDING
            passes = 12 * linear.in_features if solved else 200
            seconds += passes * elements / (FLOPS * self.config.numerics.threads)
        memory = 700_000_000 + 2 * part.bytes + 12 * part.parameters
        return Estimate(bytes=size, memory=memory, seconds=seconds)


def solvers_of(config: CompressConfig) -> tuple[Modifier, ...]:
    """The modifiers that choose codes: transforms only rewrite the layers."""
    return tuple(m for m in config.modifiers if isinstance(m, Solver))


def lookup_solver(modifiers: tuple[Modifier, ...]) -> Rtn:
    """How an embedding is rounded; see the module."""
    for modifier in modifiers:
        if isinstance(modifier, Rtn) and not needs_gram(modifier.observer):
            return modifier
    return Rtn(observer="mse")
