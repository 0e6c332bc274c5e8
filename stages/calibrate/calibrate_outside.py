"""Stage `calibrate_outside`: statistics of the lm_head's inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from pipeline.stage import Estimate, Site, Survey
from stages.calibrate.batch_size import settled
from stages.calibrate.calibration_stage import GatheringStage
from stages.calibrate.config import LIGHTER, LayerConfig
from stages.calibrate.estimate import GRAM
from stages.compute.estimates import FORWARD_FLOPS, MODEL_PROCESS
from stages.compute.gpu_estimates import head_on_gpu
from stages.compute.work import GRAM as GRAMS
from stages.compute.work import NODE
from stages.model.blueprint import Blueprint
from stages.model.proofs.proof_input import proof_problem


@dataclass(frozen=True, eq=False)
class CalibrateOutside(GatheringStage):
    """Outputs: one for each statistic of registry group "statistic", as in `calibrate`.

    The input `activations` is the output of the last decoder layer, original or compressed. Its
    facts have `unrotated`, as those of `calibrate`.
    """

    kind: ClassVar[str] = "calibrate_outside"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    work: ClassVar[tuple[str, ...]] = ("stages.calibrate.calibrate_outside_run",)
    lighter: ClassVar[str] = LIGHTER
    Config: ClassVar[type] = LayerConfig
    config: LayerConfig

    def survey(self, site: Site) -> Survey:
        unproven = proof_problem(site)
        if unproven is not None:
            return Survey(problems=(unproven,))
        blueprint, tokens = site.facts.get("model"), site.facts.get("tokens")
        if not isinstance(blueprint, Blueprint) or not isinstance(tokens, dict):
            return Survey()
        device = self.config.numerics.device
        calibrate = settled(self.config.calibrate, device, site)
        rows, width = tokens["samples"] * tokens["sequence_length"], blueprint.hidden_size
        batch = calibrate.sequences * tokens["sequence_length"]
        cost = Estimate(
            bytes=4 * width * width,
            outputs={GRAM: 4 * width * width},
            memory=MODEL_PROCESS + 4 * width * (width + 4 * batch),
            seconds=width * width * rows / FORWARD_FLOPS,
            work={GRAMS: float(width * width * rows), NODE: 1.0},
        )
        if device != "cpu":
            cost = head_on_gpu(cost)
        config = replace(self.config, calibrate=calibrate)
        plain = blueprint.rotation is None and calibrate.propagate == "original"
        return Survey(
            facts={"unrotated": plain},
            estimates={None: cost},
            settled=replace(self, config=config),
        )
