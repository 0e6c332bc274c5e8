"""Moving factors along every smoothing pair leaves a model's outputs as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from stages.model import Pair
from stages.model.families import FAMILIES
from stages.model.layer_tensors import all_tensors
from stages.model.skeleton import Skeleton
from tests.stages.model.tiny import tiny

IDS = torch.randint(3, 96, (2, 12), generator=torch.Generator().manual_seed(3))


def move(pair: Pair, tensors: dict[str, Tensor]) -> None:
    """Divide the source's output by random factors and multiply the targets' inputs by them."""
    weight = tensors[f"{pair.source}.weight"]
    factors = torch.rand(weight.shape[0]) + 0.5
    if pair.source_kind == "norm":
        tensors[f"{pair.source}.weight"] = (weight + pair.norm_offset) / factors - pair.norm_offset
    else:
        tensors[f"{pair.source}.weight"] = weight / factors[:, None]
    if f"{pair.source}.bias" in tensors:
        tensors[f"{pair.source}.bias"] = tensors[f"{pair.source}.bias"] / factors
    if pair.repeats > 1:
        factors = factors.view(-1, pair.head_dim).repeat_interleave(pair.repeats, dim=0).flatten()
    for target in pair.targets:
        tensors[f"{target}.weight"] = tensors[f"{target}.weight"] * factors


def outputs(bones: Skeleton, tensors: dict[str, Tensor]) -> Tensor:
    with bones.materialized(tensors), torch.no_grad():
        result: Tensor = bones.model(IDS, use_cache=False).logits
        return result


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_are_equivalent(family: str, tmp_path: Path) -> None:
    model = tiny(family, tmp_path)
    bones = model.skeleton()
    tensors = all_tensors(bones.blueprint, model.source)
    before = outputs(bones, tensors)
    moved = dict(tensors)
    pairs = [pair for layer in bones.blueprint.layers for pair in layer.pairs]
    for pair in pairs:
        move(pair, moved)
    torch.testing.assert_close(outputs(bones, moved), before, rtol=1e-3, atol=1e-3)
    assert len({pair.source for pair in pairs}) == len(pairs) >= 8
    # The test can fail: a pair that is moved on one side only changes the outputs.
    half = dict(tensors) | {f"{pairs[0].source}.weight": moved[f"{pairs[0].source}.weight"]}
    assert (outputs(bones, half) - before).abs().max() > 0.01


def test_a_family_without_an_entry_has_no_pairs(tmp_path: Path) -> None:
    assert tiny("olmo2", tmp_path).blueprint().layers[0].pairs == ()
