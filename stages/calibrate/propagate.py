"""Stage `propagate`: output of one compressed decoder layer, as an engine computes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from pipeline.key import Json, canonical
from pipeline.stage import Site, Survey
from stages.calibrate.batch_size import settled
from stages.calibrate.cache import CacheConfig
from stages.calibrate.calibration_stage import CalibrationStage
from stages.calibrate.config import LIGHTER
from stages.calibrate.estimate import estimates
from stages.compute.numerics import summed
from stages.model.artifact_names import ACTIVATIONS
from stages.model.proofs.proof_input import proof_problem


@dataclass(frozen=True, eq=False)
class Propagate(CalibrationStage):
    """Runs the layer with its decompressed weights, inputs and attention states fake-quantized.

    The compressed layer itself has the quantization of inputs, the input `cache` that of attention
    states.

    Output `activations`: a file of hidden states [b, T, hidden] for each batch.
    """

    kind: ClassVar[str] = "propagate"
    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "compressed-tensors")
    work: ClassVar[tuple[str, ...]] = ("stages.calibrate.propagate_run",)
    lighter: ClassVar[str] = LIGHTER
    Config: ClassVar[type] = CacheConfig
    outputs: ClassVar[tuple[str, ...]] = (ACTIVATIONS,)

    def demands(self) -> Mapping[str, tuple[str, ...]]:
        scales = ("scales",) if self.config.scheme.states() else ()
        return {**super().demands(), "weights": ("weights",), "cache": scales}

    def transient(self) -> frozenset[str]:
        return frozenset({ACTIVATIONS})

    def survey(self, site: Site) -> Survey:
        unproven = proof_problem(site)
        if unproven is not None:
            return Survey(problems=(unproven,))
        device = self.config.numerics.device
        calibrate = settled(self.config.calibrate, device, site)
        costs = estimates(site, calibrate.batch_size, grams=False, device=device)
        config = replace(self.config, calibrate=calibrate)
        return Survey(estimates=costs, settled=replace(self, config=config))

    def semantics(self, member: str | None) -> Json:
        """What the scheme says is in the inputs."""
        del member
        config = self.config
        return {"calibrate": canonical(config.calibrate), "numerics": summed(config.numerics)}
