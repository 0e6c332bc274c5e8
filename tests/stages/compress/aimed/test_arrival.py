"""The place where a Linear's output arrives, on models that add it, scale it, or norm it first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stages.compress.aimed.arrival import layout_of, multiple_added
from tests.stages.compress.aimed.layers import layer_in_two_models

SEQUENTIAL = {
    "self_attn.o_proj": ("post_attention_layernorm", 1.0),
    "mlp.down_proj": ("", 1.0),
}
EXPECTED = {
    "llama": SEQUENTIAL,
    "granite": {name: (place, 0.5) for name, (place, _) in SEQUENTIAL.items()},
    "gemma2": {},  # a norm stands between
    "cohere2": {"self_attn.o_proj": ("", 1.0), "mlp.down_proj": ("", 1.0)},  # side by side
    "gpt2": {"attn.c_proj": ("ln_2", 1.0), "mlp.c_proj": ("", 1.0)},
}
SLOW = ("granite", "gpt2")


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=pytest.mark.slow) if f in SLOW else f for f in EXPECTED],
)
def test_where_outputs_arrive(family: str, tmp_path: Path) -> None:
    with layer_in_two_models(family, 1, tmp_path) as found:
        prefix = found.subgraph.name
        layout = layout_of(found.chains, found.names, prefix)
    assert set(layout.calls) == set(found.names) and set(layout.calls.values()) == {1}
    told = {
        name.removeprefix(f"{prefix}."): (
            arrival.place.module.removeprefix(f"{prefix}."),
            pytest.approx(arrival.factor, rel=1e-4),
        )
        for name, arrival in layout.arrivals.items()
    }
    assert EXPECTED[family] == told
    if family == "cohere2":  # one norm for attention and MLP
        assert len({layout.shared[name] for name in found.names}) == 3
    if family == "llama":
        assert len({layout.shared[name] for name in found.names}) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_a_multiple_of_what_was_added_counts(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    own, stream, noise = (torch.randn(3, 50, 32, generator=draw).to(dtype) for _ in range(3))
    usual = stream + own
    assert multiple_added(usual, stream + (own + noise), own, noise) == pytest.approx(1, rel=1e-2)
    scaled = stream + 0.25 * own
    found = multiple_added(scaled, stream + 0.25 * (own + noise), own, noise)
    assert found == pytest.approx(0.25, rel=1e-2)
    flat = multiple_added(usual.reshape(-1, 32), (usual + noise).reshape(-1, 32), own, noise)
    assert flat == pytest.approx(1, rel=1e-2)
    assert multiple_added(own, own + noise, own, noise) is None  # nothing was added yet
    assert multiple_added(usual, usual, own, noise) is None
    gate = torch.rand(32, generator=draw).to(dtype)
    assert multiple_added(usual, usual + gate * noise, own, noise) is None
    assert multiple_added(usual, torch.tanh(usual + noise), own, noise) is None
    assert multiple_added(usual[..., :16], usual[..., :16], own, noise) is None
