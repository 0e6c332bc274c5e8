"""What a plan expects of a layer, against what the layer then takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from safetensors.torch import load_file

from pipeline.errors import UserError
from stages.calibrate.config import CalibrateConfig
from stages.calibrate.estimate import estimates
from stages.model.boundary import STRUCTURE
from tests.stages.calibrate.conftest import Scene


@dataclass
class FakeSite:
    facts: dict[str, Any]


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_bytes_are_those_of_the_files(family: str, scene: Callable[..., Scene]) -> None:
    made = scene(family)
    site = FakeSite({"model": made.blueprint, "tokens": {"samples": 5, "sequence_length": 24}})
    found = estimates(site, 2, grams=True)  # type: ignore[arg-type]  # only facts are looked at
    drafts = made.calibrate(0, "activations", "gram")
    size = sum(f.stat().st_size for draft in drafts.values() for f in draft.path.iterdir())
    assert list(found) == list(made.blueprint.members)
    assert found["model.layers.0"].bytes == pytest.approx(size, rel=0.03)


@pytest.mark.parametrize("family", ["gemma3n_text", "gemma4_text"])
def test_a_boundary_is_all_that_the_proof_saw(family: str, scene: Callable[..., Scene]) -> None:
    made = scene(family, lengths=(24,) * 4)
    for index in range(3):
        made.calibrate(index, "activations")
    draft = made.calibrate(3, "activations")["activations"]
    found = load_file(draft.file("0000.safetensors"))
    shapes = {name: list(t.shape) for name, t in found.items() if name != STRUCTURE}
    assert family == "gemma4_text" or len(shapes["hidden"]) == 4
    tokens = {"samples": 4, "sequence_length": 24}
    facts = {"model": made.blueprint, "tokens": tokens}
    proof = {"replay": {"hands_on": shapes, "tokens": [2, 24]}}
    layer = made.blueprint.members[3]
    before = estimates(FakeSite(facts), 2, grams=False)[layer]  # type: ignore[arg-type]
    after = estimates(FakeSite({**facts, "proof": proof}), 2, grams=False)[layer]  # type: ignore[arg-type]
    size = sum(file.stat().st_size for file in draft.path.iterdir())
    assert after.outputs["activations"] == pytest.approx(size, rel=0.05)
    assert before.outputs["activations"] < size / 2
    assert after.memory > before.memory
    # on a machine that computes in float32 what is stored in 16 bits, activations have 32
    half = {**facts, "model": replace(made.blueprint, dtype="bfloat16")}
    assert estimates(FakeSite(half), 2, grams=False)[layer].outputs == before.outputs  # type: ignore[arg-type]


def test_a_layer_is_counted_beside_the_next_where_that_is_checked(
    scene: Callable[..., Scene],
) -> None:
    made = scene("llama")
    facts = {"model": made.blueprint, "tokens": {"samples": 1, "sequence_length": 1}}
    found = estimates(FakeSite(facts), 1, grams=True, device="cuda:0")  # type: ignore[arg-type]
    first, second = (found[name].device_memory for name in made.blueprint.members[:2])
    assert first > 2 * made.blueprint.layers[0].bytes
    assert second == found[made.blueprint.members[3]].device_memory


def test_nothing_is_said_before_model_and_tokens_are_known() -> None:
    assert estimates(FakeSite({"model": None}), 2, grams=True) == {}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"propagate": "both"}, {"experts": "some"}, {"batch_size": 0}], ids=str
)
def test_bad_settings_name_what_is_allowed(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"choose one of|give 1 or more"):
        CalibrateConfig(**wrong)
