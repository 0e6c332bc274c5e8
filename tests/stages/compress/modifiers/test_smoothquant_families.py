"""SmoothQuant without quantization leaves float64 logits of models of many kinds as they were."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.compress.layer.state import LayerState, LazyTensors
from stages.compress.layer.statistics import Statistics
from stages.compress.modifiers.smoothquant import SmoothQuant
from stages.model.blueprint_from_class import blueprint_of
from stages.model.shrunken import randomize, tokens
from stages.model.skeleton import skeleton
from stages.schemes.quant_args import QArgs
from stages.schemes.resolve import resolve
from stages.schemes.scheme import SchemeConfig
from tests.families.case import Case
from tests.families.dense import DENSE
from tests.families.experts import EXPERTS
from tests.families.hybrid import HYBRID
from tests.families.tiny import config_of
from tests.stages.compress.layers import statistics
from tests.stages.model.tiny import proven

CASES: dict[str, Case] = {case.name: case for case in (*DENSE, *EXPERTS, *HYBRID)}
QUICK = ("cohere", "deepseek_v3")
SLOW = (
    *("falcon", "falcon_7b", "opt", "phi", "gpt_neox", "glm4", "gemma2", "nemotron", "granite"),
    *("qwen3_next", "qwen3_5_text", "qwen2_moe", "gpt_oss", "llama4_text", "nemotron_h", "lfm2"),
)


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_logits_stay(name: str, tmp_path: Path) -> None:
    config: dict[str, Any] = json.loads(config_of(CASES[name]).to_json_string(use_diff=False))
    blueprint = proven(json.dumps(config)).attached(blueprint_of(config))
    blueprint = replace(blueprint, dtype="float64")
    bones = skeleton(blueprint)
    randomize(bones.model, 0)
    ids = tokens(bones.model)
    held = dict(bones.model.state_dict())
    resolved = resolve(SchemeConfig(weights=QArgs()), blueprint).checked()
    with torch.no_grad():
        before = bones.model(input_ids=ids, use_cache=False).logits
        for layer in blueprint.layers:
            mine = {linear.name for linear in layer.linears}
            state = LayerState(
                subgraph=layer,
                tensors=LazyTensors({}),
                statistics=Statistics(statistics(layer, tmp_path, ("absmax",)), "cpu"),
                resolved={n: r for n, r in resolved.items() if n in mine},
                dtype=torch.float64,
            )
            for tensor in layer.tensors:
                state.tensors[tensor] = held[tensor]
            SmoothQuant(pairs=["norm", "linear"]).rewrite(state)
            assert any("norm" in tensor or "ln" in tensor for tensor in state.changed)
            for tensor in state.changed:
                held[tensor].copy_(state.tensors[tensor])
        after = bones.model(input_ids=ids, use_cache=False).logits
    # factors and their products are rounded to float32
    assert float((after - before).abs().max()) < 1e-5 * float(before.abs().max())
    assert not torch.equal(after, before)
