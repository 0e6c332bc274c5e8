"""Base classes of the calibration stages, which run on the activations at a boundary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError
from pipeline.key import Json
from pipeline.registry import Registry
from pipeline.stage import Site, Stage
from stages.calibrate.config import LayerConfig
from stages.model.artifact_names import ACTIVATIONS
from stages.model.proofs.proof_input import proof_problem
from stages.model.traits.learned_positions import length_problem

STATISTICS = "statistic"
"""The registry's group of statistics."""


def length_problem_of(site: Site) -> UserError | None:
    """The error of calibration sequences that are longer than the model's learned positions."""
    return length_problem(
        site.facts.get("model"), site.facts.get("tokens"), "dataset.sequence_length"
    )


def replay_problem(site: Site) -> UserError | None:
    """The error of layers that cannot be replayed on the calibration data; None: they can."""
    return proof_problem(site) or length_problem_of(site)


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
