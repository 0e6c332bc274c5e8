"""What errors are worth against each other."""

from __future__ import annotations

from typing import Any

import pytest

from stages.choose.expected_loss import (
    LOSS,
    SHARE,
    damages,
    expected_loss,
    measure_of,
    shared_error,
)
from stages.model.blueprint import LinearSpec
from stages.schemes.candidates import Unit, Units


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
    assert shared_error(unit("a.q_proj", "a.k_proj"), "w4", modules) == pytest.approx(0.4)


def test_a_block_counts_by_what_it_adds_to_the_residual_stream() -> None:
    quiet, loud = module(0.1, share=0.02), module(0.1, share=0.5)
    ratio = shared_error(unit("a"), "w4", {"a": loud}) / shared_error(unit("a"), "w4", {"a": quiet})
    assert ratio == pytest.approx(25)


def test_experts_of_a_projection_are_one_module_that_their_outputs_weigh() -> None:
    names = [f"mlp.experts.{i}.{p}_proj" for i in range(2) for p in ("up", "down")]
    modules = {name: module(0.2, energy=3.0) for name in names}
    modules["mlp.experts.1.up_proj"] = module(0.6, energy=1.0)
    expected = (0.2 * 3 + 0.6 * 1) / 4 + 0.2
    assert shared_error(unit(*names), "w4", modules) == pytest.approx(expected)


def test_a_module_that_gives_nothing_cannot_do_harm() -> None:
    assert shared_error(unit("a"), "w4", {"a": module(0.0, energy=0.0)}) == 0.0


def felt(loss: float) -> dict[str, Any]:
    """A module of which a backward pass told what its error costs."""
    candidates = {"w4": {"relative_error": 0.5, "damage": loss, "bits": 4.25}}
    return {**module(0.5), "candidates": candidates}


def test_expected_losses_add_up_whatever_the_shares_are() -> None:
    modules = {"a.q_proj": felt(0.01), "a.k_proj": felt(0.2)}
    modules["a.k_proj"]["share"] = 1e-6
    whole = Units(units=(unit("a.q_proj", "a.k_proj"),), formats={})
    assert measure_of(modules) == LOSS
    assert damages(whole, modules) == [{"w4": pytest.approx(0.21)}]
    assert expected_loss(unit("a.q_proj"), "w4", modules) == pytest.approx(0.01)


def test_without_a_backward_pass_errors_count_by_their_shares() -> None:
    modules = {"a": module(0.1, share=0.5)}
    assert measure_of(modules) == SHARE
    assert damages(Units(units=(unit("a"),), formats={}), modules) == [{"w4": pytest.approx(0.05)}]
