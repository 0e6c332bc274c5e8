"""Shares of the residual stream, against what transformers' own forward shows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stages.calibrate.residual_share import Shares, blocks_of


class Block(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.factor * x, None


class Layer(nn.Module):
    """Adds 0.5 x, and then twice that sum."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp, self.gate = Block(0.5), Block(2.0), nn.Linear(4, 1)

    def forward(self, hidden_states: Tensor) -> Tensor:
        self.gate(hidden_states)
        x = hidden_states + self.attn(hidden_states)[0]
        return x + self.mlp(x)[0]


def test_every_token_counts_alike_however_large_it_is() -> None:
    x = torch.randn(2, 3, 4)
    x[0, 0] *= 1e4
    layer, shares = Layer(), Shares(blocks=("attn", "mlp", "gate"))
    with shares.watching(layer):
        for part in x.split(1):
            shares.take(layer(hidden_states=part), None)
    found = shares.finish()
    # |0.5 x|^2 to |x|^2; |3 x|^2 (twice 1.5 x) to |x|^2; |3.5 x|^2 to |x|^2
    expected = {"attn": 0.25 / 1.25, "mlp": 9 / 10, "": 12.25 / 13.25}
    assert found.keys() == expected.keys()
    assert all(abs(found[name] - value) < 1e-6 for name, value in expected.items())


def test_padding_counts_nothing() -> None:
    layer, shares = Layer(), Shares(blocks=("attn",))
    x = torch.ones(1, 2, 4)
    x[0, 1] = 0
    with shares.watching(layer):
        shares.take(layer(x), torch.tensor([[True, False]]))
    assert shares.tokens == 1 and abs(shares.finish()["attn"] - 0.2) < 1e-6


def test_nothing_is_left_on_the_layer_afterwards() -> None:
    layer, shares = Layer(), Shares(blocks=("attn",))
    with shares.watching(layer):
        pass
    layer(torch.ones(1, 1, 4))
    assert not layer.attn._forward_hooks and shares.tokens == 0


def test_blocks_are_the_children_that_hold_modules() -> None:
    names = ["m.layers.0.self_attn.q_proj", "m.layers.0.mlp.up_proj", "m.layers.0.direct"]
    assert blocks_of("m.layers.0", names) == ("self_attn", "mlp")
