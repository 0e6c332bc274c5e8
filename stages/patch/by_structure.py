"""Stages whose result depends on a model's structure alone: on config.json, not on weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pipeline.key import Json
from pipeline.registry import Registry
from pipeline.stage import Estimate, Site, Stage, Survey
from stages.compute.estimates import MODEL_PROCESS
from stages.model.blueprint import Blueprint

SECONDS = 10.0
"""Importing torch and transformers, and forwards of a tiny model."""

OF_ONE_MODEL = frozenset(
    {
        *("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"),
        *("id2label", "label2id", "problem_type", "finetuning_task", "task_specific_params"),
        *("quantization_config", "auto_map", "base_model_name_or_path"),
    }
)
"""Config keys in which fine-tunes of one architecture differ, and that change no structure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoOptions:
    """No options."""


@dataclass(frozen=True, eq=False)
class ByStructure(Stage):
    """A node that is the same for all models whose config.json has one structure.

    It takes the blueprint (input `model`) for its config alone.
    """

    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    Config: ClassVar[type] = NoOptions
    model: Mapping[str, Any] | None = None
    """The parsed config.json, once the survey has seen it."""

    def consults(self) -> frozenset[str]:
        return frozenset({"source", "model"})

    def semantics(self, member: str | None) -> Json:
        """The structure that config.json describes, and what plugins replace in it."""
        del member
        added = Registry.load().added
        plugins = {group: added[group] for group in ("patch", "family") if added.get(group)}
        model = None if self.model is None else structure(self.model)
        return {"model": model} | ({"plugins": plugins} if plugins else {})

    def survey(self, site: Site) -> Survey:
        blueprint = site.facts.get("model")
        known = blueprint.config if isinstance(blueprint, Blueprint) else None
        cost = Estimate(bytes=20_000, memory=MODEL_PROCESS, seconds=SECONDS)
        return Survey(facts=blueprint, settled=replace(self, model=known), estimates={None: cost})


def structure(config: Mapping[str, Any]) -> dict[str, Json]:
    """A parsed config.json without what says nothing of the model's structure."""
    return {
        name: structure(value) if isinstance(value, Mapping) else value
        for name, value in sorted(config.items())
        if name not in OF_ONE_MODEL and not name.endswith("_token_id")
    }
