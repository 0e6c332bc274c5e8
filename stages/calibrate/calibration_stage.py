"""Base classes of the calibration stages, which run on the activations at a boundary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.key import Json
from pipeline.registry import Registry
from pipeline.stage import Stage
from stages.calibrate.config import LayerConfig
from stages.model.artifact_names import ACTIVATIONS

STATISTICS = "statistic"
"""The registry's group of statistics."""


@dataclass(frozen=True, eq=False)
class CalibrationStage(Stage):
    """Reads `activations`; its own transient results share the memory of `calibrate.memory`."""

    config: Any
    """With a CalibrateConfig in `calibrate`."""

    def demands(self) -> Mapping[str, tuple[str, ...]]:
        return {ACTIVATIONS: (ACTIVATIONS,)}

    @property
    def held_memory(self) -> int | None:
        memory: int | None = self.config.calibrate.memory
        return memory


@dataclass(frozen=True, eq=False)
class GatheringStage(CalibrationStage):
    """One output for each statistic of the registry."""

    config: LayerConfig

    @property
    def outputs(self) -> tuple[str, ...]:
        return Registry.load().kinds(STATISTICS)

    def transient(self) -> frozenset[str]:
        """Activations, and statistics of compressed layers, which fit this config only."""
        compressed = self.config.calibrate.propagate == "compressed"
        return frozenset(self.outputs if compressed else {ACTIVATIONS}.intersection(self.outputs))

    def semantics(self, member: str | None) -> Json:
        del member
        return self.config.with_gram()
