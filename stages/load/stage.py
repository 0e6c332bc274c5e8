"""Stage `load`: identify a model, record where its weights are, and copy its small files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.errors import StageFailed, UserError
from pipeline.key import Json
from pipeline.stage import Estimate, Site, Stage, Survey, Task
from stages.compute.estimates import LOAD_PROCESS
from stages.load.model_kind import Look, ModelKind, SourceFacts, Work, each
from stages.model.artifact_names import MODEL
from stages.quantized.catalog import reading_key
from stages.weights.hashes import while_hashing

SECONDS = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadConfig:
    """The model to load: a component of the group `model`."""

    model: Any = field(metadata={"component": "model"})


@dataclass(frozen=True, eq=False)
class Load(Stage):
    """Output `out`: source.json (names, places, hashes of the weight files) and `model/`.

    The key depends on the model's content (a hub commit, sha256 of files), not on where it lies;
    where the weights are stored quantized, on what reads them, too.
    """

    kind = "load"
    version = 2
    in_driver = True  # the hub asks for a token
    Config = LoadConfig
    config: LoadConfig
    look: Look | None = None
    """What is known of the model, once it is surveyed."""

    @property
    def model(self) -> ModelKind:
        model: ModelKind = self.config.model
        return model

    def survey(self, site: Site) -> Survey:
        with while_hashing(site.prepare):
            look = self.model.look(mode=site.mode)
        if look.problems:
            return Survey(facts=look.facts, problems=look.problems, warnings=look.warnings)
        settled = replace(self, look=look)
        stored = site.own(settled)
        facts = look.facts
        if stored is not None:
            facts = replace(facts, config=stored.json(f"{MODEL}/config.json"))
            if site.mode == "run" and facts.identity is not None:
                try:
                    self.model.renew(stored, facts.identity)
                except UserError as error:
                    return Survey(facts=facts, problems=each(error), warnings=look.warnings)
        elif site.mode == "plan" and facts.config is None:
            try:
                facts = replace(facts, config=self.model.plan_config())
            except UserError as error:
                return Survey(facts=facts, problems=each(error), warnings=look.warnings)
        cost = Estimate(bytes=look.stored_bytes, memory=LOAD_PROCESS, seconds=SECONDS)
        return Survey(
            facts=facts,
            warnings=look.warnings,
            notes=quantized_note(facts),
            estimates={None: cost},
            settled=settled,
        )

    def semantics(self, member: str | None) -> Json:
        del member
        facts = (self.look or self.model.look(mode="plan")).facts
        key = {"identity": facts.identity, "model": self.model.semantics()}
        if facts.quantization is None:
            return key
        return {**key, "reading": reading_key(facts.quantization)}

    def run(self, task: Task) -> None:
        draft = task.outputs["out"]
        known = self.look.facts.identity if self.look is not None else None
        work = Work(scratch=task.scratch, progress=task.progress, warn=task.warn, reads=task.reads)
        loaded = self.model.load(draft, known, work)
        if known is not None and loaded != known:
            raise StageFailed(
                "the model's files changed while they were loaded", remedy="run it again"
            )


def quantized_note(facts: SourceFacts) -> tuple[str, ...]:
    """A sentence for a plan, where the source's weights are stored quantized."""
    if facts.quantization is None:
        return ()
    method = facts.quantization.get("quant_method")
    return (
        f"{facts.label} is quantized already ({method}): modifier=keep takes over its codes and "
        "scales, other modifiers choose new ones from the dequantized weights",
    )
