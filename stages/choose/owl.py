"""Stage `owl`: outliers of all decoder layers, by which OWL shares out zeros (arXiv:2310.05175)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pipeline.key import Json
from pipeline.stage import Estimate, Site, Stage, Survey
from stages.compute.estimates import CORE_FLOPS, MODEL_PROCESS
from stages.compute.numerics import Numerics, summed
from stages.model.blueprint import Blueprint

OPERATIONS = 8
"""Of one entry of a weight: its score, the sum, a comparison."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwlConfig:
    """The run's modifiers, of which a pruner may say `owl_m`."""

    modifiers: tuple[Any, ...] = field(default=(), metadata={"components": "modifier"})
    numerics: Numerics = field(default_factory=Numerics)

    @property
    def owl_m(self) -> float | None:
        """How many times the mean score of a layer an outlier's score is; None: nobody asks."""
        asked = (getattr(modifier, "owl_m", None) for modifier in self.modifiers)
        return next((float(m) for m in asked if m is not None), None)


@dataclass(frozen=True, eq=False)
class Owl(Stage):
    """Output `out`: outliers.json, the share of outliers among the weights of every layer.

    `statistics` are those of the original model's inputs. Of a layer's Linears all count, those of
    experts that saw no token apart.
    """

    kind: ClassVar[str] = "owl"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = OwlConfig
    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    work: ClassVar[tuple[str, ...]] = ("stages.choose.owl_run",)
    config: OwlConfig

    def demands(self) -> Mapping[str, tuple[str, ...]]:
        return {"statistics": ("squares",)}

    def survey(self, site: Site) -> Survey:
        blueprint = site.facts.get("model")
        if not isinstance(blueprint, Blueprint):
            return Survey()
        largest = max((layer.parameters for layer in blueprint.layers), default=0)
        entries = sum(linear.in_features * linear.out_features for linear in blueprint.linears())
        cost = Estimate(
            bytes=100 * len(blueprint.layers),
            memory=MODEL_PROCESS + 8 * largest,
            seconds=OPERATIONS * entries / (CORE_FLOPS * self.config.numerics.threads),
        )
        return Survey(estimates={None: cost})

    def semantics(self, member: str | None) -> Json:
        del member
        return {"owl_m": self.config.owl_m, "numerics": summed(self.config.numerics)}
