"""Stage `patch`: blueprint of the model with modules made compressible, and its decoder layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pipeline.errors import UserError
from pipeline.key import Json, canonical
from pipeline.registry import Registry
from pipeline.stage import Artifact, Site, Stage, Survey, Task
from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_names import Spec, outline_of
from stages.patch.survey import survey_of, write

EXPERTS = ("all", "routed")
MEMORY = 700 * 2**20
SECONDS = 5.0
"""Importing torch and transformers; building a model without weights is quick."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchConfig:
    """`experts`: which tokens a routed expert sees in calibration, all or those routed to it."""

    experts: str = "all"

    def __post_init__(self) -> None:
        if self.experts not in EXPERTS:
            raise UserError(
                f"experts is {self.experts!r}", remedy=f"choose one of {', '.join(EXPERTS)}"
            )


class Patch(Stage):
    """Writes `blueprint.json`; lists the decoder layers; its facts are the blueprint."""

    kind: ClassVar[str] = "patch"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("transformers",)
    also_imports: ClassVar[tuple[str, ...]] = ("stages.model.blueprint_from_class",)
    Config: ClassVar[type] = PatchConfig

    def __init__(self, config: PatchConfig) -> None:
        super().__init__(config)
        self._drawn: dict[str, Blueprint] = {}

    def semantics(self, member: str | None) -> Json:
        """The patches and families of plugins as well: they may draw another blueprint."""
        del member
        added = Registry.load().added
        plugins = {group: added[group] for group in ("patch", "family") if added.get(group)}
        return canonical(self.config) | ({"plugins": plugins} if plugins else {})

    def survey(self, site: Site) -> Survey:
        return survey_of(lambda: self._find(site), memory=MEMORY, seconds=SECONDS)

    def run(self, task: Task) -> None:
        source = task.inputs["source"]
        write(self._drawn.get(source.key) or self._draw(source), task.outputs["out"])

    def _find(self, site: Site) -> Blueprint | None:
        """From the store, from the weights, or (a plan without weights) from the config alone."""
        own = site.own()
        if own is not None:
            return Blueprint.load(own)
        source = site.artifact("source")
        if source is not None:
            self._drawn[source.key] = self._draw(source)
            return self._drawn[source.key]
        config: Mapping[str, Any] | None = getattr(site.facts.get("source"), "config", None)
        if config is None:
            return None
        return self._blueprint(config, getattr(site.facts.get("source"), "tensors", None))

    def _draw(self, source: Artifact) -> Blueprint:
        from stages.quantized.open import open_source

        return self._blueprint(source.json("model/config.json"), open_source(source).specs())

    def _blueprint(self, config: Mapping[str, Any], specs: Mapping[str, Spec] | None) -> Blueprint:
        """Drawn from its class; outlined where transformers has none but tensors are known."""
        from stages.model.blueprint_from_class import blueprint_of
        from stages.model.meta_model import UnknownArchitecture

        try:
            return blueprint_of(config, experts=self.config.experts, specs=specs)
        except UnknownArchitecture as error:
            if specs is None:
                raise
            outline = outline_of(config, specs, why=error.what)
            told = f"{error.what}: it is outlined from the names of its tensors ({error.remedy})"
            return replace(outline, notes=(told, *outline.notes))
