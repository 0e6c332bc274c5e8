"""Stage `patch`: blueprint of the model with modules made compressible, and its decoder layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pipeline.errors import UserError
from pipeline.key import Json, canonical
from pipeline.registry import Registry
from pipeline.stage import Artifact, Site, Stage, Survey, Task
from stages.compute.estimates import MODEL_PROCESS
from stages.model.artifact_names import MODEL
from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_names import Spec, outline_of
from stages.patch.planned import remembered
from stages.patch.survey import survey_of, write

EXPERTS = ("all", "routed")
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


@dataclass(frozen=True, eq=False)
class Patch(Stage):
    """Writes `blueprint.json`; lists the decoder layers; its facts are the blueprint."""

    kind: ClassVar[str] = "patch"
    version: ClassVar[int] = 8
    libraries: ClassVar[tuple[str, ...]] = ("transformers",)
    also_imports: ClassVar[tuple[str, ...]] = ("stages.model.blueprint_from_class",)
    Config: ClassVar[type] = PatchConfig
    config: PatchConfig
    drawn: Blueprint | None = None
    """The blueprint, where the survey had to draw it from the weights' headers."""

    def semantics(self, member: str | None) -> Json:
        """The patches of plugins as well: they may draw another blueprint."""
        del member
        added = Registry.load().added.get("patch")
        return canonical(self.config) | ({"plugins": {"patch": added}} if added else {})

    def survey(self, site: Site) -> Survey:
        """From the store, from the weights, or (a plan without weights) from the config alone."""
        try:
            own = site.own()
            facts = site.facts.get("source")
            # a model with fewer experts takes forwards to make: what is known of it will do
            known = _is_pruned(facts) and getattr(facts, "tensors", None) is not None
            source = None if known or own is not None else site.artifact("source")
            if own is not None:
                blueprint: Blueprint | None = Blueprint.load(own)
            elif source is not None:
                blueprint = draw(self.config, source)
            else:
                blueprint = self._expected(facts)
        except UserError as error:
            return Survey(problems=(error,))
        found = survey_of(blueprint, memory=MODEL_PROCESS, seconds=SECONDS)
        return found if source is None else replace(found, settled=replace(self, drawn=blueprint))

    def _expected(self, facts: object) -> Blueprint | None:
        """The blueprint of a model that is not loaded; None where its config.json is not known."""
        model: Mapping[str, Any] | None = getattr(facts, "config", None)
        if model is None:
            return None
        specs = getattr(facts, "tensors", None)
        return remembered(
            lambda: _blueprint(self.config, model, specs),
            semantics=[self.version, self.semantics(None)],
            model=model,
            specs=specs,
        )

    def run(self, task: Task) -> None:
        write(self.drawn or draw(self.config, task.inputs["source"]), task.outputs["out"])


def draw(config: PatchConfig, source: Artifact) -> Blueprint:
    """The blueprint of a loaded model, from its config.json and its tensors' headers."""
    from stages.quantized.open import open_source
    from stages.quantized.source import check_turned

    opened = open_source(source)
    blueprint = _blueprint(config, source.json(f"{MODEL}/config.json"), opened.specs())
    check_turned(opened, blueprint.turned)
    return blueprint


def _is_pruned(facts: object) -> bool:
    """Whether a source is the result of `reap`."""
    return getattr(facts, "experts", None) is not None


def _blueprint(
    config: PatchConfig, model: Mapping[str, Any], specs: Mapping[str, Spec] | None
) -> Blueprint:
    """Drawn from its class; outlined where transformers has none but tensors are known."""
    from stages.model.blueprint_from_class import blueprint_of
    from stages.model.meta_model import UnknownArchitecture

    try:
        return blueprint_of(model, experts=config.experts, specs=specs)
    except UnknownArchitecture as error:
        if specs is None:
            raise
        outline = outline_of(model, specs, why=error.what)
        told = f"{error.what}: it is outlined from the names of its tensors ({error.remedy})"
        return replace(outline, notes=(told, *outline.notes))
