"""Stage `gradient_outside`: start of the backward pass, at the output of the last layer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from pipeline.stage import Estimate, Site, Survey
from stages.calibrate.batch_size import settled
from stages.calibrate.calibration_stage import CalibrationStage
from stages.calibrate.config import CalibrateConfig
from stages.compute.estimates import FORWARD_FLOPS, MODEL_PROCESS
from stages.compute.gpu_estimates import head_on_gpu
from stages.compute.numerics import Numerics, summed
from stages.model.blueprint import Blueprint
from stages.model.proofs.proof_input import proof_problem

LOGITS = 1 << 25
"""Elements of logits that are in memory at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EndingConfig:
    """`seed` draws the labels."""

    calibrate: CalibrateConfig = field(default_factory=CalibrateConfig)
    numerics: Numerics = field(default_factory=Numerics, metadata={"key": summed})
    seed: int = 0


@dataclass(frozen=True, eq=False)
class GradientOutside(CalibrationStage):
    """Derivatives of the log-likelihood of labels that are sampled from the model itself.

    With such labels, the mean square of a derivative is the curvature of the KL divergence from
    the model to a neighbouring one, the Fisher information; labels of the text would give the
    empirical Fisher information. Output `out`: a file of derivatives with respect to the output of
    the last decoder layer [b, T, hidden] for each batch, zero for padding.
    """

    kind: ClassVar[str] = "gradient_outside"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    work: ClassVar[tuple[str, ...]] = ("stages.calibrate.gradient_outside_run",)
    lighter: ClassVar[str] = "lower calibrate.memory or dataset.sequence_length"
    Config: ClassVar[type] = EndingConfig
    config: EndingConfig

    def transient(self) -> frozenset[str]:
        return frozenset(self.outputs)

    def survey(self, site: Site) -> Survey:
        unproven = proof_problem(site)
        if unproven is not None:
            return Survey(problems=(unproven,))
        blueprint, tokens = site.facts.get("model"), site.facts.get("tokens")
        if not isinstance(blueprint, Blueprint) or not isinstance(tokens, dict):
            return Survey()
        device = self.config.numerics.device
        calibrate = settled(self.config.calibrate, device, site)
        rows = tokens["samples"] * tokens["sequence_length"]
        head = blueprint.hidden_size * blueprint.vocab_size
        passed = 4 * rows * blueprint.hidden_size
        cost = Estimate(
            bytes=passed,
            outputs={self.outputs[0]: passed},
            memory=MODEL_PROCESS + 4 * head + 16 * LOGITS,
            seconds=4 * head * rows / FORWARD_FLOPS,
        )
        if device != "cpu":
            cost = head_on_gpu(cost)
        config = replace(self.config, calibrate=calibrate)
        return Survey(estimates={None: cost}, settled=replace(self, config=config))
