"""Stage `reap`: the model with the least salient routed experts of every layer left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, ClassVar

from pipeline.errors import UserError
from pipeline.key import Json, canonical
from pipeline.stage import Estimate, Site, Stage, Survey
from stages.compute.estimates import MODEL_PROCESS
from stages.model.artifact_names import MODEL, SALIENCY
from stages.model.blueprint import Blueprint
from stages.model.structure.expert_share import check_share
from stages.model.structure.fewer_experts import Counts

SECONDS = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ReapConfig:
    """The share of every layer's experts that is pruned."""

    sparsity: float

    def __post_init__(self) -> None:
        check_share(self.sparsity)


@dataclass(frozen=True, eq=False)
class Reap(Stage):
    """Output `out`: like that of `load`, for a model with fewer experts; no weight is copied.

    Its facts are those of the input `source`, with the config and the tensors of that model. The
    input `model` is the blueprint of the whole one, `layers` are results of `saliency`.
    """

    kind: ClassVar[str] = "reap"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("transformers",)
    work: ClassVar[tuple[str, ...]] = ("stages.patch.reap_run",)
    Config: ClassVar[type] = ReapConfig
    config: ReapConfig

    def demands(self) -> Mapping[str, tuple[str, ...]]:
        return {"layers": (SALIENCY,)}

    def survey(self, site: Site) -> Survey:
        blueprint, facts = site.facts.get("model"), site.facts.get("source")
        if not isinstance(blueprint, Blueprint) or not is_dataclass(facts):
            return Survey(facts=facts)
        own = site.own()
        if own is not None:
            config = own.json(f"{MODEL}/config.json")
            known = {"config": config, "tensors": None, "experts": own.meta["experts"]}
        else:
            try:
                known = planned(blueprint, self.config.sparsity, getattr(facts, "tensors", None))
            except UserError as error:
                return Survey(problems=(error,))
        size = 100 * sum(1 for _ in blueprint.linears())
        cost = Estimate(bytes=size, memory=MODEL_PROCESS, seconds=SECONDS)
        found: Any = replace(facts, **known)  # type: ignore[type-var]  # of the stage `load`
        return Survey(facts=found, estimates={None: cost})

    def semantics(self, member: str | None) -> Json:
        del member
        return canonical(self.config)


def planned(
    blueprint: Blueprint, sparsity: float, tensors: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The config and tensors of the model that will be made, and how many experts it will have.

    Which experts stay is not known yet, and changes neither. Raises UserError where none can go.
    """
    from stages.model.structure.expert_places import expert_places, experts_of, fewer_experts

    before = experts_of(blueprint)
    left = Counts.of(blueprint.config, before).left(sparsity)
    places = expert_places(blueprint, left)
    first = {layer.layer: range(left) for layer in places.layers}
    return {
        "config": fewer_experts(blueprint.config, before, left),
        "tensors": None if tensors is None else places.select(first).specs(tensors),
        "experts": left,
    }
