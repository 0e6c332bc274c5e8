"""Stage `gradient`: diagonal Fisher information of the outputs of a decoder layer's Linears."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from pipeline.stage import Estimate, Site, Survey
from stages.calibrate.batch_size import settled
from stages.calibrate.calibration_stage import CalibrationStage, replay_problem
from stages.calibrate.config import LayerConfig
from stages.calibrate.estimate import estimates
from stages.model.artifact_names import ACTIVATIONS

GRADIENT = "gradient"
FISHER = "fisher"


@dataclass(frozen=True, eq=False)
class Gradient(CalibrationStage):
    """Runs a backward pass through one original layer, and passes it on to the layer before.

    The layer's forward is repeated from the boundary before it, so that memory holds one layer.
    The input `gradient` is the output of that name of the layer after it; the last layer has
    `ending` instead, which `gradient_outside` makes.

    Outputs: `gradient`, a file of the loss's derivatives with respect to the layer's input
    [b, T, hidden] for each batch; and `fisher`, fisher.safetensors with a float32 [out] for every
    Linear: the mean of the squared derivatives over tokens. Its meta has `tokens`.
    """

    kind: ClassVar[str] = "gradient"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    work: ClassVar[tuple[str, ...]] = ("stages.calibrate.gradient_run",)
    lighter: ClassVar[str] = "lower calibrate.memory or dataset.sequence_length"
    Config: ClassVar[type] = LayerConfig
    outputs: ClassVar[tuple[str, ...]] = (GRADIENT, FISHER)
    config: LayerConfig

    def demands(self) -> Mapping[str, tuple[str, ...]]:
        return {**super().demands(), GRADIENT: (GRADIENT,)}

    def transient(self) -> frozenset[str]:
        return frozenset({GRADIENT})

    def survey(self, site: Site) -> Survey:
        problem = replay_problem(site)
        if problem is not None:
            return Survey(problems=(problem,))
        device = self.config.numerics.device
        calibrate = settled(self.config.calibrate, device, site)
        forward = estimates(site, 1, grams=False, device=device)
        return Survey(
            estimates={name: _longer(cost) for name, cost in forward.items()},
            settled=replace(self, config=replace(self.config, calibrate=calibrate)),
        )


def _longer(cost: Estimate) -> Estimate:
    """A forward and a backward pass are about three forward passes, and keep what lies between."""
    return replace(
        cost,
        seconds=3 * cost.seconds,
        memory=2 * cost.memory,
        outputs={GRADIENT: cost.outputs[ACTIVATIONS]},
        device_memory=2 * cost.device_memory,
        remedy="",
    )
