"""Replay is checked on the model itself, on the first tokens, layer after layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.errors import StageFailed
from stages.calibrate import first_batch
from stages.calibrate.first_batch import difference
from stages.calibrate.layer_replay import place_of
from stages.model import replay as replaying
from stages.model.boundary import EMBEDDING, Boundary
from stages.model.layer_types import firsts_after_another
from tests.stages.calibrate.conftest import Scene

Make = Callable[..., Scene]


@pytest.mark.parametrize(
    ("family", "wanted"), [("llama", [0]), ("gemma3_text", [0, 1]), ("gemma4_text", [0, 1, 2])]
)
def test_the_first_layer_of_each_type_after_another_is_checked(
    family: str, wanted: list[int], scene: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, seen = scene(family), []
    whole = replaying.replay_two

    def counted(skeleton: Any, index: int, *args: Any) -> Boundary:
        seen.append(index)
        return whole(skeleton, index, *args)

    monkeypatch.setattr(first_batch, "replay_two", counted)
    for index in range(4):
        made.calibrate(index, "activations")
    assert seen == wanted == [index - 1 for index in firsts_after_another(made.blueprint)]


def test_with_zeros_for_embeddings_gemma_4_fails_on_its_own_weights(
    scene: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_but_embedding(*args: Any) -> set[str]:
        return set(args[2].tensors) - {EMBEDDING}

    monkeypatch.setattr(replaying, "_read_later", all_but_embedding)
    with pytest.raises(StageFailed, match=r"layers\.1 cannot be run from what .*layers\.0") as told:
        scene("gemma4_text").calibrate(0, "activations")
    assert "24 of 24 vectors of hidden" in told.value.what
    assert "graph=data_free" in (told.value.remedy or "")


def test_digits_that_are_lost_between_layers_are_found(
    scene: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Boundary.stored

    def rounded(self: Boundary) -> dict[str, torch.Tensor]:
        return {n: t.bfloat16() if t.is_floating_point() else t for n, t in whole(self).items()}

    monkeypatch.setattr(Boundary, "stored", rounded)
    with pytest.raises(StageFailed, match="gives other values than in one forward"):
        scene("llama").calibrate(0, "activations")


def test_layers_that_do_not_fit_together_are_told(
    scene: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, warnings = scene("llama"), []
    monkeypatch.setattr(first_batch, "capacity", lambda device: 1)
    task = made.worker.task(
        made.blueprint.members[0], made.inputs, {"activations": "a"}, warnings.append
    )
    first_batch.check_first_batch(task, place_of(task, "cpu"), 2)
    assert len(warnings) == 1 and "model.layers.1 is proven on a small random" in warnings[0]


def test_rounding_may_differ_and_a_few_tokens_go_elsewhere() -> None:
    wanted = torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(0))
    near, few, many = wanted * (1 + 1e-6), wanted.clone(), wanted.clone()
    few[0, :2] += 1
    many[0, :3] += 1
    told = [
        difference(Boundary.plain(x), Boundary.plain(wanted), torch.float32)
        for x in (wanted, near, few, many, wanted[:1])
    ]
    assert told == ["", "", "", "3 of 100 vectors of hidden", "hidden has another shape"]
    half = difference(Boundary.plain(wanted.bfloat16()), Boundary.plain(wanted), torch.bfloat16)
    assert half == ""
