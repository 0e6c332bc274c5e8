"""Stage `cache`: qparams of the KV cache or attention states of one decoder layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from pipeline.key import Json, canonical
from pipeline.stage import Site, Stage, Survey
from stages.calibrate.batch_size import settled
from stages.calibrate.calibration_stage import length_problem_of
from stages.calibrate.config import LIGHTER, CalibrateConfig
from stages.calibrate.estimate import estimates
from stages.compute.numerics import Numerics, summed
from stages.model.artifact_names import ACTIVATIONS
from stages.model.proofs.proof_input import proof_problem
from stages.schemes.scheme import SchemeConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheConfig:
    """Only `kv_cache` and `attention` of the scheme count."""

    scheme: SchemeConfig = field(default_factory=SchemeConfig)
    calibrate: CalibrateConfig = field(default_factory=CalibrateConfig)
    numerics: Numerics = field(default_factory=Numerics)


@dataclass(frozen=True, eq=False)
class Cache(Stage):
    """Runs the compressed layer, whose attention states are those that an engine will hold.

    The original layer would not do, because a transform may have rescaled them. Output `scales`:
    cache.safetensors with the tensors under their checkpoint names; the meta has `modules`
    (module name -> checkpoint prefix).
    """

    kind: ClassVar[str] = "cache"
    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "compressed-tensors")
    work: ClassVar[tuple[str, ...]] = ("stages.calibrate.cache_run",)
    lighter: ClassVar[str] = LIGHTER
    Config: ClassVar[type] = CacheConfig
    outputs: ClassVar[tuple[str, ...]] = ("scales",)

    def demands(self) -> Mapping[str, tuple[str, ...]]:
        return {ACTIVATIONS: (ACTIVATIONS,), "weights": ("weights",)}

    def survey(self, site: Site) -> Survey:
        unproven = proof_problem(site)
        if unproven is not None:
            return Survey(problems=(unproven,))
        problem = length_problem_of(site)
        if problem is not None and self.config.scheme.states():
            return Survey(problems=(problem,))
        device = self.config.numerics.device
        calibrate = settled(self.config.calibrate, device, site)
        costs = estimates(site, calibrate.batch_size, grams=False, device=device)
        config = replace(self.config, calibrate=calibrate)
        return Survey(estimates=costs, settled=replace(self, config=config))

    def semantics(self, member: str | None) -> Json:
        del member
        return {
            "states": canonical(self.config.scheme.states()),
            "calibrate": canonical(self.config.calibrate),
            "numerics": summed(self.config.numerics),
        }
