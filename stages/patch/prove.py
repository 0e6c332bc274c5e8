"""Stage `prove`: proof, before anything runs, that the model can be replayed layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pipeline.key import Json
from pipeline.registry import Registry
from pipeline.stage import Estimate, Site, Stage, Survey, Task
from stages.compute.estimates import MODEL_PROCESS
from stages.model.blueprint import Blueprint
from stages.model.proofs.proof_input import FILE

SECONDS = 10.0
"""Importing torch and transformers, and a few forwards of a tiny model."""

OF_ONE_MODEL = frozenset(
    {
        *("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"),
        *("id2label", "label2id", "problem_type", "finetuning_task", "task_specific_params"),
        *("quantization_config", "auto_map", "base_model_name_or_path"),
    }
)
"""Config keys in which fine-tunes of one architecture differ, and that change no structure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProveConfig:
    """No options."""


@dataclass(frozen=True, eq=False)
class Prove(Stage):
    """Writes `proof.json`: what a small random model of the same class has shown.

    A model of the class and with the structure of config.json, but tiny, runs as a whole and is
    replayed layer by layer: equal to the bit, or the node fails and names the first layer that
    differs. The key depends on config.json and not on weights or paths, so that all fine-tunes of
    an architecture share one proof.
    """

    kind: ClassVar[str] = "prove"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    also_imports: ClassVar[tuple[str, ...]] = ("stages.model.proofs.replay_proof",)
    Config: ClassVar[type] = ProveConfig
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

    def run(self, task: Task) -> None:
        from stages.model.proofs.replay_proof import prove

        proof = prove(self.model or {})
        draft = task.outputs["out"]
        draft.write_json(FILE, proof)
        draft.meta.update(architecture=proof["architecture"], layers=len(proof["replay"]["layers"]))


def structure(config: Mapping[str, Any]) -> dict[str, Json]:
    """A parsed config.json without what says nothing of the model's structure."""
    return {
        name: structure(value) if isinstance(value, Mapping) else value
        for name, value in sorted(config.items())
        if name not in OF_ONE_MODEL and not name.endswith("_token_id")
    }
