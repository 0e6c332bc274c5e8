"""A replayed layer gives the bits of the full forward, for families of many kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from stages.model.boundary import Boundary
from stages.model.ending import logits, tail_names
from stages.model.layer_tensors import all_tensors, layer_tensors, outside_tensors
from stages.model.replay import final_hidden, replay, stem_names
from stages.model.skeleton import Skeleton
from stages.quantized.turned_source import TurnedSource
from stages.weights import WeightSource
from tests.stages.model.tiny import FAMILIES, TIED_LAYERS, Tiny, tiny

IDS = torch.randint(3, 96, (2, 24), generator=torch.Generator().manual_seed(1))
ROUTED = {"qwen3_moe", "qwen2_moe", "mixtral", "olmoe"}


def read(model: Tiny, bones: Skeleton) -> WeightSource:
    """The weights as jobs read them: GPT-2's matrices as those of Linears."""
    return TurnedSource(model.source, bones.blueprint.turned)


def chain(model: Tiny, bones: Skeleton) -> list[Boundary]:
    """What every layer hands on, each replayed from the one before."""
    before: Boundary | None = None
    outputs = []
    for index, layer in enumerate(bones.blueprint.layers):
        names = stem_names(bones, index)
        tensors = layer_tensors(layer, read(model, bones))
        tensors |= outside_tensors(bones.blueprint, names, read(model, bones))
        with bones.materialized(tensors):
            before = Boundary.from_stored(replay(bones, index, IDS, before).stored())
        outputs.append(before)
    return outputs


def plain(model: Tiny) -> tuple[list[Tensor], Tensor]:
    """The same from one forward of the model as transformers loads it, and its logits."""
    original = model.original()
    outputs: list[Tensor] = []
    for module in original.get_decoder().modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == 4:
            for layer in module:
                layer.register_forward_hook(
                    lambda m, a, out: outputs.append(out[0] if isinstance(out, tuple) else out)
                )
            break
    with torch.no_grad():
        return outputs, original(IDS, use_cache=False).logits


@pytest.mark.parametrize("family", [*FAMILIES, *TIED_LAYERS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_replayed_chain_equals_the_full_forward(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = tiny(family, tmp_path, dtype=dtype)
    bones = model.skeleton()
    outputs, wanted = chain(model, bones), plain(model)
    names = tail_names(bones, head=True)
    with bones.materialized(outside_tensors(bones.blueprint, names, read(model, bones))):
        final = final_hidden(bones, IDS, outputs[-1])
        mine = logits(bones, final)

    if family in ROUTED:  # gate and up are two products here, one in transformers
        tolerance = 1e-3 if dtype == torch.float32 else 0.3
        torch.testing.assert_close(mine, wanted[1], atol=tolerance, rtol=tolerance)
        return
    assert all(torch.equal(a.hidden, b) for a, b in zip(outputs, wanted[0], strict=True))
    assert torch.equal(mine, wanted[1])


@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral"])
def test_logits_of_some_tokens_are_those_of_all(family: str, tmp_path: Path) -> None:
    model = tiny(family, tmp_path)
    bones = model.skeleton()
    names = tail_names(bones, head=True)
    final = torch.randn(2, 24, 64)
    with bones.materialized(outside_tensors(bones.blueprint, names, read(model, bones))):
        torch.testing.assert_close(logits(bones, final)[1:, 3:9], logits(bones, final[1:, 3:9]))


def test_everything_is_as_before_after_a_replay(tmp_path: Path) -> None:
    model = tiny("qwen3_moe", tmp_path, dtype=torch.bfloat16)
    bones = model.skeleton()
    before = {name: module.__dict__.get("forward") for name, module in bones.model.named_modules()}
    chain(model, bones)
    after = {name: module.__dict__.get("forward") for name, module in bones.model.named_modules()}
    assert all(parameter.is_meta for parameter in bones.model.parameters())
    assert after == before


def test_generation_with_everything_materialised_equals_transformers(tmp_path: Path) -> None:
    model = tiny("qwen3", tmp_path)
    bones = model.skeleton()
    with bones.materialized(all_tensors(bones.blueprint, read(model, bones))):
        mine = bones.model.generate(IDS[:1, :5], max_new_tokens=8, do_sample=False)
    wanted = model.original().generate(IDS[:1, :5], max_new_tokens=8, do_sample=False)
    assert torch.equal(mine, wanted)
