"""What a plan expects of a layer, against what the layer then takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.errors import UserError
from stages.calibrate.config import CalibrateConfig
from stages.calibrate.estimate import estimates
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


def test_nothing_is_said_before_model_and_tokens_are_known() -> None:
    assert estimates(FakeSite({"model": None}), 2, grams=True) == {}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"propagate": "both"}, {"experts": "some"}, {"batch_size": 0}], ids=str
)
def test_bad_settings_name_what_is_allowed(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"choose one of|give 1 or more"):
        CalibrateConfig(**wrong)
