"""What errors are worth against each other."""

from __future__ import annotations

from typing import Any

import pytest

from stages.choose.damage import damage
from stages.formats.candidates import Unit
from stages.model.blueprint import LinearSpec


def unit(*names: str) -> Unit:
    linears = tuple(LinearSpec(name=n, prefix=n, in_features=64, out_features=8) for n in names)
    return Unit(layer="model.layers.0", linears=linears, candidates={"w4": 100})


def module(error: float, *, share: float = 1.0, energy: float = 1.0) -> dict[str, Any]:
    return {
        "energy": energy,
        "share": share,
        "candidates": {"w4": {"relative_error": error, "bits": 4.25}},
    }


def test_the_modules_of_a_unit_add_up_whatever_the_size_of_their_outputs() -> None:
    modules = {"a.q_proj": module(0.1, energy=1.0), "a.k_proj": module(0.3, energy=1e6)}
    assert damage(unit("a.q_proj", "a.k_proj"), "w4", modules) == pytest.approx(0.4)


def test_a_block_counts_by_what_it_adds_to_the_residual_stream() -> None:
    quiet, loud = module(0.1, share=0.02), module(0.1, share=0.5)
    ratio = damage(unit("a"), "w4", {"a": loud}) / damage(unit("a"), "w4", {"a": quiet})
    assert ratio == pytest.approx(25)


def test_experts_of_a_projection_are_one_module_that_their_outputs_weigh() -> None:
    names = [f"mlp.experts.{i}.{p}_proj" for i in range(2) for p in ("up", "down")]
    modules = {name: module(0.2, energy=3.0) for name in names}
    modules["mlp.experts.1.up_proj"] = module(0.6, energy=1.0)
    expected = (0.2 * 3 + 0.6 * 1) / 4 + 0.2
    assert damage(unit(*names), "w4", modules) == pytest.approx(expected)


def test_a_module_that_gives_nothing_cannot_do_harm() -> None:
    assert damage(unit("a"), "w4", {"a": module(0.0, energy=0.0)}) == 0.0
