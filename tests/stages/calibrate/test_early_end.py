"""Forwards that nobody wants the output of end with the last Linear's input, and lose nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from stages.calibrate import layer_replay
from stages.calibrate.input_hooks import Collector
from stages.calibrate.statistics.gram import Gram
from tests.stages.calibrate.conftest import Scene


class Routed(nn.Module):
    """Two Linears of which the second sees nothing where the first input is negative."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.ran = nn.Linear(4, 4), nn.Linear(4, 4), 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        if x[0, 0] > 0:
            y = self.two(y)
        self.ran += 1
        return y


def counts(layer: Routed, signs: list[int]) -> dict[str, int]:
    """How many rows each Linear saw in forwards of these signs, all of which may end early."""
    collector = Collector(names=["l.one", "l.two"], statistics={"gram": Gram()}, device="cpu")
    with collector.watching(layer, prefix="l.", send_all=True), torch.no_grad():
        for sign in signs:
            with collector.forward(None, stops=True):
                layer(sign * torch.ones(3, 4))
    return collector.tokens


def test_a_forward_ends_once_every_linear_was_called_as_often_as_at_first() -> None:
    layer = Routed()
    assert counts(layer, [1, 1, 1]) == {"l.one": 9, "l.two": 9}
    assert layer.ran == 1


def test_a_forward_that_calls_fewer_runs_whole() -> None:
    layer = Routed()
    assert counts(layer, [1, -1, 1]) == {"l.one": 9, "l.two": 6}
    assert layer.ran == 2


def test_no_forward_ends_before_one_has_called_every_linear() -> None:
    layer = Routed()
    assert counts(layer, [-1, 1, 1, -1]) == {"l.one": 12, "l.two": 6}
    assert layer.ran == 3


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_statistics_are_those_of_whole_forwards(
    family: str, scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scene(family)
    whole = made.calibrate(0, "gram", "absmax", "range", "histogram")
    kept = {name: load_file(draft.file(f"{name}.safetensors")) for name, draft in whole.items()}
    monkeypatch.setattr(layer_replay, "MEASURED", 1)
    early = made.calibrate(0, "gram", "absmax", "range", "histogram")
    for name, draft in early.items():
        found = load_file(draft.file(f"{name}.safetensors"))
        assert found.keys() == kept[name].keys()
        assert all(torch.equal(found[key], kept[name][key]) for key in found)
        assert draft.meta["tokens"] == whole[name].meta["tokens"]
        assert draft.meta["shares"].keys() == whole[name].meta["shares"].keys()
    assert early["gram"].meta["shares"] != whole["gram"].meta["shares"]
