"""Experts as Linears compute what transformers' fused containers compute."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stages.model.experts.linear_experts import LinearExperts
from stages.model.layer_tensors import all_tensors
from tests.stages.model.tiny import tiny

FAMILIES = ["qwen3_moe", "mixtral", "qwen2_moe", "olmoe"]
IDS = torch.randint(3, 96, (2, 16), generator=torch.Generator().manual_seed(5))


def test_outputs_equal_the_unpatched_models(tmp_path: Path) -> None:
    for family in FAMILIES:
        model = tiny(family, tmp_path / family)
        bones = model.skeleton()
        with torch.no_grad(), bones.materialized(all_tensors(bones.blueprint, model.source)):
            mine = bones.model(IDS, use_cache=False).logits
            wanted = model.original()(IDS, use_cache=False).logits
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_sending_all_tokens_changes_no_bit_of_the_output(family: str, tmp_path: Path) -> None:
    model = tiny(family, tmp_path, dtype=torch.bfloat16)
    bones = model.skeleton()
    experts = [m for m in bones.model.modules() if isinstance(m, LinearExperts)]
    rows: dict[str, list[int]] = defaultdict(list)
    for name, module in bones.model.named_modules():
        if ".experts." in name and isinstance(module, nn.Linear):
            module.register_forward_pre_hook(
                lambda m, args, name=name: rows[name].append(len(args[0]))
            )
    logits: list[Tensor] = []
    with torch.no_grad(), bones.materialized(all_tensors(bones.blueprint, model.source)):
        for send_all in (False, True):
            rows.clear()
            for module in experts:
                module.send_all = send_all
            logits.append(bones.model(IDS, use_cache=False).logits)
    assert torch.equal(*logits)
    linears = [x for layer in bones.blueprint.layers for x in layer.linears if x.expert]
    assert rows == {linear.name: [IDS.numel()] for linear in linears}
