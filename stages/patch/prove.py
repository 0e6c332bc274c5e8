"""Stage `prove`: proof, before anything runs, that the model can be replayed layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from pipeline.stage import Site, Survey, Task
from stages.model.proofs.proof_input import FILE
from stages.patch.by_structure import ByStructure


@dataclass(frozen=True, eq=False)
class Prove(ByStructure):
    """Writes `proof.json`: what a small random model of the same class has shown.

    A model of the class and with the structure of config.json, but tiny, runs as a whole and is
    replayed layer by layer: equal to the bit, or the node fails and names the first layer that
    differs. The key depends on config.json and not on weights or paths, so that all fine-tunes of
    an architecture share one proof. Its facts are the proof, None before it is made.
    """

    kind: ClassVar[str] = "prove"
    version: ClassVar[int] = 2
    also_imports: ClassVar[tuple[str, ...]] = ("stages.model.proofs.replay_proof",)

    def survey(self, site: Site) -> Survey:
        survey = super().survey(site)
        made = None if site.facts.get("model") is None else site.own(survey.settled)
        return replace(survey, facts=None if made is None else made.json(FILE))

    def run(self, task: Task) -> None:
        from stages.model.proofs.replay_proof import prove

        proof = prove(self.model or {})
        draft = task.outputs["out"]
        draft.write_json(FILE, proof)
        draft.meta.update(architecture=proof["architecture"], layers=len(proof["replay"]["layers"]))
