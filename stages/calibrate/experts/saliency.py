"""Stage `saliency`: how much each routed expert of a decoder layer adds (REAP), and its output."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from pipeline.key import Json, canonical
from pipeline.stage import Site, Survey
from stages.calibrate.batch_size import settled
from stages.calibrate.calibration_stage import CalibrationStage, replay_problem
from stages.calibrate.config import LIGHTER, LayerConfig
from stages.calibrate.estimate import estimates
from stages.model.artifact_names import ACTIVATIONS, SALIENCY


@dataclass(frozen=True, eq=False)
class Saliency(CalibrationStage):
    """Runs the original layer on the boundary before it, each token through its own experts.

    Outputs: `activations`, as `calibrate` gives them, and `saliency`: saliency.json with `values`
    and `tokens` of every expert in order, both empty for a layer without experts.
    """

    kind: ClassVar[str] = "saliency"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    work: ClassVar[tuple[str, ...]] = ("stages.calibrate.experts.saliency_run",)
    lighter: ClassVar[str] = LIGHTER
    Config: ClassVar[type] = LayerConfig
    outputs: ClassVar[tuple[str, ...]] = (ACTIVATIONS, SALIENCY)
    config: LayerConfig

    def transient(self) -> frozenset[str]:
        return frozenset({ACTIVATIONS})

    def survey(self, site: Site) -> Survey:
        problem = replay_problem(site)
        if problem is not None:
            return Survey(problems=(problem,))
        device = self.config.numerics.device
        calibrate = settled(self.config.calibrate, device, site)
        return Survey(
            estimates=estimates(site, calibrate.batch_size, grams=False, device=device),
            settled=replace(self, config=replace(self.config, calibrate=calibrate)),
        )

    def semantics(self, member: str | None) -> Json:
        del member
        return canonical(self.config)
