"""Stage `calibrate`: statistics of the inputs of a decoder layer's Linears, and its output."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from pipeline.stage import Site, Survey
from stages.calibrate.batch_size import settled
from stages.calibrate.calibration_stage import GatheringStage, length_problem_of
from stages.calibrate.config import LIGHTER, LayerConfig
from stages.calibrate.estimate import estimates
from stages.model.artifact_names import ACTIVATIONS
from stages.model.blueprint import Blueprint
from stages.model.proofs.proof_input import proof_problem


@dataclass(frozen=True, eq=False)
class Calibrate(GatheringStage):
    """Runs the original layer on the boundary before it.

    Outputs: `activations`, a file of hidden states [b, T, hidden] for each batch; and for each
    entry of registry group "statistic" (gram, absmax, range, ...) one of that name, a tensor for
    each group of Linears that see the same input, under the name of its first module. The meta of a
    statistic has `groups` (module -> first module), `tokens` (first module -> rows seen) and
    `shares` (block of the layer -> how much it changes the residual stream).

    Its facts have `problems`, which are for those that want statistics: without them it never runs.
    `unrotated` in them: whether it is fed by the original layers of a model that is not rotated, so
    that a rotated model's Gram matrices follow from its own.
    """

    kind: ClassVar[str] = "calibrate"
    version: ClassVar[int] = 5
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    work: ClassVar[tuple[str, ...]] = ("stages.calibrate.run",)
    ahead: ClassVar[str] = "stages.quantized.open"
    speeds: ClassVar[str] = "stages.calibrate.statistics.speeds"
    lighter: ClassVar[str] = LIGHTER
    Config: ClassVar[type] = LayerConfig
    config: LayerConfig

    @property
    def outputs(self) -> tuple[str, ...]:
        return (ACTIVATIONS, *super().outputs)

    def survey(self, site: Site) -> Survey:
        unproven = proof_problem(site)
        if unproven is not None:
            return Survey(problems=(unproven,), facts={"problems": ()})
        device = self.config.numerics.device
        calibrate = settled(self.config.calibrate, device, site)
        problem, model = length_problem_of(site), site.facts.get("model")
        plain = isinstance(model, Blueprint) and model.rotation is None
        return Survey(
            facts={
                "problems": () if problem is None else (problem,),
                "unrotated": plain and calibrate.propagate == "original",
            },
            estimates=estimates(site, calibrate.batch_size, grams=True, device=device),
            settled=replace(self, config=replace(self.config, calibrate=calibrate)),
        )
