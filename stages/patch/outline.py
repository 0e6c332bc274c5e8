"""Stage `outline`: blueprint from tensor names alone, and the list of units of work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.errors import UserError
from pipeline.stage import Artifact, Site, Stage, Survey, Task
from stages.compute.estimates import HEADERS_PROCESS
from stages.model.artifact_names import MODEL
from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_names import Spec, outline_of
from stages.patch.survey import survey_of, write

WHY = "this graph outlines the model from its tensor names, without its class"


@dataclass(frozen=True, kw_only=True, slots=True)
class OutlineConfig:
    """No options."""


@dataclass(frozen=True, eq=False)
class Outline(Stage):
    """Writes `blueprint.json`; lists the units of work; its facts are the blueprint.

    A unit is the tensors whose names agree up to the first number: a decoder layer, a block of a
    vision tower, an extra prediction layer.
    """

    kind: ClassVar[str] = "outline"
    version: ClassVar[int] = 4
    also_imports = ("stages.model.blueprint_from_names", "stages.quantized.open")
    Config: ClassVar[type] = OutlineConfig

    def survey(self, site: Site) -> Survey:
        try:
            return survey_of(self._find(site), memory=HEADERS_PROCESS, seconds=0.1)
        except UserError as error:
            return Survey(problems=(error,))

    def run(self, task: Task) -> None:
        write(_outlined(task.inputs["source"]), task.outputs["out"])

    def _find(self, site: Site) -> Blueprint | None:
        """From the store, the weights, or (a plan without weights) what the plan knows of them."""
        own = site.own()
        if own is not None:
            return Blueprint.load(own)
        source = site.artifact("source")
        if source is not None:
            return _outlined(source)
        facts = site.facts.get("source")
        config: Mapping[str, Any] | None = getattr(facts, "config", None)
        if config is None:
            return None
        specs: Mapping[str, Spec] | None = getattr(facts, "tensors", None)
        return outline_of(config, _expected(config) if specs is None else specs, why=WHY)


def _outlined(source: Artifact) -> Blueprint:
    from stages.quantized.open import open_source

    config = source.json(f"{MODEL}/config.json")
    return outline_of(config, open_source(source).specs(), why=WHY)


def _expected(config: Mapping[str, Any]) -> Mapping[str, Spec]:
    """The tensors that transformers would save for a config whose weights are not here.

    Raises UserError for a model that transformers does not know.
    """
    from stages.model.checkpoint_names import expected_specs

    try:
        return expected_specs(config)
    except UserError as error:
        raise UserError(
            f"{error.what}, and without the weights' files their names cannot be known",
            remedy="fetch the model first: give its folder with model=local, or run without "
            "mode=plan",
        ) from error
