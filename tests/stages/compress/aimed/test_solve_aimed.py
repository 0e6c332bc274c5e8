"""Sums over tokens of two models, against forwards of transformers' own models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.compress.aimed.arrival import layout_of
from stages.compress.aimed.solve_aimed import groups_of
from stages.compress.aimed.sums import sums_of
from tests.stages.compress.aimed.layers import IDS, WIDTH, changed, layer_in_two_models

LENGTHS = torch.tensor([WIDTH, 7, WIDTH, 9])
COUNTED = (torch.arange(WIDTH) < LENGTHS[:, None]).flatten()


def values_of(model: nn.Module, names: dict[str, str]) -> dict[str, Tensor]:
    """Inputs ("in") and outputs ("out") of modules in a forward, as rows that count, float64."""
    found: dict[str, Tensor] = {}

    def hook(name: str, kind: str) -> Any:
        def seen(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            del module
            value = args[0] if kind == "in" else output
            value = value[0] if isinstance(value, tuple) else value
            found[name] = value.detach().reshape(-1, value.shape[-1])[COUNTED].double()

        return seen

    handles = [
        model.get_submodule(name).register_forward_hook(hook(name, kind))
        for name, kind in names.items()
    ]
    with torch.no_grad():
        model(input_ids=IDS, use_cache=False)
    for handle in handles:
        handle.remove()
    return found


def test_sums_are_those_of_forwards_of_both_models(tmp_path: Path) -> None:
    layer = "model.layers.1"
    o_proj, up = f"{layer}.self_attn.o_proj", f"{layer}.mlp.up_proj"
    norm = f"{layer}.post_attention_layernorm"
    with layer_in_two_models("llama", 1, tmp_path, lengths=LENGTHS) as opened:
        layout = layout_of(opened.chains, opened.names, layer)
        groups = groups_of(layout, {})
        stream = sums_of(opened.chains, layout, opened.weights(groups[1]))
        opened.chains.put(o_proj, 2 * opened.chains.own[o_proj])  # as if it were quantized to that
        own = sums_of(opened.chains, layout, opened.weights(groups[2]))
        model = opened.model.original()
    assert [len(group) for group in groups] == [3, 1, 2, 1] and groups[1] == (o_proj,)
    wanted = {o_proj: "in", norm: "in", up: "out"}
    original = values_of(model, wanted)
    state = dict(model.named_parameters())
    linears = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    first = {f"{n}.weight" for n in linears if n.startswith("model.layers.0.")}
    mine = {n: t.data for n, t in state.items() if n.startswith("model.layers.0.")}
    for name, value in changed(mine, first).items():
        state[name].data = value
    present = values_of(model, wanted)
    B, D = present[o_proj], original[norm] - present[norm]
    assert stream.tokens == int(COUNTED.sum())
    torch.testing.assert_close(stream.H.double(), B.T @ B, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stream.crosses[o_proj].double(), D.T @ B, rtol=1e-3, atol=1e-3)
    assert stream.differences[o_proj] == pytest.approx(float(D.square().sum()), rel=1e-4)
    assert stream.wanted[o_proj] == pytest.approx(float(original[norm].square().sum()), rel=1e-4)
    state[f"{o_proj}.weight"].data *= 2
    later = values_of(model, {up: "in"})[up]
    D = original[up] - later @ state[f"{up}.weight"].detach().double().T
    torch.testing.assert_close(own.H.double(), later.T @ later, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(own.crosses[up].double(), D.T @ later, rtol=1e-3, atol=1e-3)
    assert own.differences[up] == pytest.approx(float(D.square().sum()), rel=1e-3)
    assert own.wanted[up] == pytest.approx(float(original[up].square().sum()), rel=1e-4)
