"""One tiny model of a family with its tokens, as the inputs of calibrate and propagate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stages.calibrate.config import CalibrateConfig, LayerConfig
from stages.calibrate.stage import Calibrate
from stages.model import Blueprint
from tests.stages.calibrate.fakes import (
    FakeArtifact,
    Worker,
    load_result,
    patch_result,
    tokens_of,
)
from tests.stages.model.threads import one_thread
from tests.stages.model.tiny import Tiny, tiny

__all__ = ["one_thread", "scene"]


@dataclass
class Scene:
    """A tiny model and 5 rows of tokens, and a worker that runs stages on them."""

    model: Tiny
    blueprint: Blueprint
    inputs: dict[str, FakeArtifact]
    worker: Worker
    width: int

    def calibrate(self, index: int, *outputs: str, batch_size: int = 2) -> dict[str, FakeArtifact]:
        """Run calibrate[index] for some outputs; its input is that of the layer before."""
        stage = Calibrate(LayerConfig(calibrate=CalibrateConfig(batch_size=batch_size)))
        inputs = dict(self.inputs)
        if index:
            inputs["activations"] = FakeArtifact(self.worker.root / f"activations{index - 1}")
        wanted = {name: f"{name}{index}" for name in outputs}
        task = self.worker.task(self.blueprint.members[index], inputs, wanted)
        stage.run(task)
        return dict(task.outputs)  # type: ignore[arg-type]  # FakeArtifacts are drafts


@pytest.fixture
def scene(tmp_path: Path) -> Callable[..., Scene]:
    """scene(family, lengths=..., experts=..., **changes of the config)."""

    def make(
        family: str,
        lengths: tuple[int, ...] = (24, 24, 24, 24, 24),
        experts: str = "all",
        **changes: Any,
    ) -> Scene:
        model = tiny(family, tmp_path / "model", **changes)
        bones = model.skeleton(experts=experts)
        patch = patch_result(bones.blueprint, tmp_path / "patch")
        worker = Worker(root=tmp_path / "out")
        worker.resources[f"skeleton/{patch.key}/cpu"] = bones
        inputs = {
            "source": load_result(model, tmp_path / "load"),
            "model": patch,
            "tokens": tokens_of(tmp_path / "tokens", list(lengths), 24),
        }
        return Scene(model=model, blueprint=bones.blueprint, inputs=inputs, worker=worker, width=24)

    return make
