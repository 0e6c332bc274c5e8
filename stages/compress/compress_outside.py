"""The stage `compress_outside`: lm_head, embedding and other modules outside the decoder layers.

They are compressed like a layer whose inputs are those of the lm_head. An embedding looks rows up,
so there is no Gram matrix to solve in: its codes are the nearest ones, under scales that minimise
the weight's own squared error unless the modifier is rtn, which keeps its observer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipeline.errors import UserError
from pipeline.key import Json
from pipeline.stage import Estimate, Site, Stage, Survey
from stages.compress.config import CompressConfig, needed_statistics
from stages.compress.layer_plan import (
    GRAM,
    UNROTATED,
    float16_revision,
    follows,
    formats_key,
    gram_is_all,
    layer_work,
    on_gpu,
    solving_seconds,
    statistics_problem,
)
from stages.compress.modifiers.base import Modifier, Solver
from stages.compress.modifiers.observer import needs_gram
from stages.compress.modifiers.rtn import Rtn
from stages.compute.estimates import COMPRESS_PROCESS
from stages.model.blueprint import EMBEDDING, Blueprint
from stages.schemes.chosen import CHOICE, settled
from stages.schemes.resolve import Resolved, resolve
from stages.schemes.sizes import linear_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Ends:
    """What is quantized outside the layers, by name, once it is surveyed.

    `unrotated`: see `stages.compress.stage.Layers`.
    """

    blueprint: Blueprint
    formats: Mapping[str, Resolved]
    unrotated: bool = False


@dataclass(frozen=True, eq=False)
class CompressOutside(Stage):
    """Output `weights`: as that of `compress`, of the quantized modules outside the layers."""

    kind = "compress_outside"
    version = 4
    Config = CompressConfig
    lighter = "lower calibrate.memory, which changes no result"
    outputs = ("weights",)
    libraries = ("torch", "compressed-tensors", "numba")
    work = ("stages.compress.compress_outside_run",)
    config: CompressConfig
    ends: Ends | None = None

    def consults(self) -> frozenset[str]:
        return frozenset({CHOICE})

    def demands(self) -> dict[str, tuple[str, ...]]:
        """What calibration must tell, once the scheme is known to quantize the lm_head."""
        if self.ends is not None and self.ends.blueprint.head not in self.ends.formats:
            return {"statistics": (), UNROTATED: ()}
        alone = replace(self.config, modifiers=solvers_of(self.config))
        unrotated = None if self.ends is None else self.ends.unrotated  # None: both, to ask
        return {
            "statistics": () if unrotated else needed_statistics(alone),
            UNROTATED: GRAM if unrotated is not False and gram_is_all(self.config) else (),
        }

    def survey(self, site: Site) -> Survey:
        """Problems of the scheme are told by `compress`."""
        blueprint = site.facts.get("model")
        if not isinstance(blueprint, Blueprint):
            return Survey()
        if problem := self.config.undivided():
            return Survey(problems=(problem,))
        if statistics_problem(self.config, site.facts, blueprint):
            return Survey()
        config = settled(self.config, site)
        found = resolve(config.scheme, blueprint)
        if found.problems:
            return Survey()
        names = {end.name for end in blueprint.ends()}
        formats = {name: resolved for name, resolved in found.modules.items() if name in names}
        blind = [
            linear.name
            for linear in blueprint.outside_linears
            if linear.name in formats and linear.name != blueprint.head and measures(config)
        ]
        if blind:
            problem = UserError(
                f"{', '.join(blind[:4])}: calibration sees the decoder layers and the lm_head "
                "only, so there is no Gram matrix for them",
                remedy="put them in scheme.ignore, or say modifier=rtn",
            )
            return Survey(problems=(problem,))
        ends = Ends(
            blueprint=blueprint, formats=formats, unrotated=follows(self.config, site.facts)
        )
        return Survey(
            facts=blueprint,
            estimates={None: ends_estimate(config, ends)},
            settled=replace(self, config=config, ends=ends),
        )

    def semantics(self, member: str | None) -> Json:
        del member
        ends = self.ends
        return {
            "scheme": {} if ends is None else formats_key(ends.blueprint.ends(), ends.formats),
            "modifiers": [m.semantics() for m in solvers_of(self.config)],
            "numerics": self.config.numerics_key(),
            **({} if ends is None else float16_revision(ends.blueprint.dtype)),
        }


def ends_estimate(config: CompressConfig, ends: Ends) -> Estimate:
    """The cost of all that is quantized outside the layers; one weight is solved at a time."""
    part, dtype = ends.blueprint.outside_part(set(ends.formats)), ends.blueprint.dtype
    size, seconds = 0, 0.5
    for linear in part.linears:
        size += linear_bytes(linear, ends.formats[linear.name].scheme, dtype)
        solved = measures(config) and linear.kind != EMBEDDING
        seconds += solving_seconds(config, linear, solved=solved)
    memory = COMPRESS_PROCESS + 2 * part.bytes + 12 * part.parameters
    alone = replace(config, modifiers=solvers_of(config))
    work = layer_work(alone, part, ends.formats, solved=measures(config))
    cost = Estimate(bytes=size, memory=memory, seconds=seconds, work=work, reads=part.bytes)
    if config.numerics.device == "cpu":
        return cost
    return on_gpu(cost, part, ends.formats, solved=measures(config))


def measures(config: CompressConfig) -> bool:
    """Whether codes are chosen in the metric of a module's inputs."""
    return any("gram" in m.statistics() for m in solvers_of(config))


def solvers_of(config: CompressConfig) -> tuple[Modifier, ...]:
    """The modifiers that choose codes; transforms only rewrite the layers, and only they learn."""
    return tuple(m.outside() for m in config.modifiers if isinstance(m, Solver))


def lookup_solver(modifiers: tuple[Modifier, ...]) -> Rtn:
    """How an embedding is rounded; see the module."""
    for modifier in modifiers:
        if isinstance(modifier, Rtn) and not needs_gram(modifier.observer):
            return replace(modifier, per_target=None)
    return Rtn(observer="mse")
