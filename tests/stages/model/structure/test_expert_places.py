"""Models with fewer experts compute what the original does with the other experts never chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import UserError
from stages.model.structure.expert_places import expert_places, experts_of, fewer_experts
from stages.model.structure.fewer_experts import Counts
from stages.model.structure.selected_source import SelectedSource, Selection
from tests.stages.model.experts import families
from tests.stages.model.experts.families import EXPERTS
from tests.stages.model.experts.tiny import tiny_experts
from tests.stages.model.structure.never_chosen import loaded, logits, never_chosen, same
from tests.stages.model.tiny import tiny

QUICK = ("qwen3_moe", "gpt_oss", "llama4_text", "gemma4_text", "granitemoe", "ernie4_5_moe", "dbrx")
KEPT = ((1, 2, 3), (0, 1, 3))
"""Of the first layer with experts, and of those after it."""


def check(family: str, folder: Path, kept: tuple[tuple[int, ...], ...], experts: int) -> None:
    """Prune a tiny model of a family by hand, load it, and compare it with the oracle."""
    tiny_model = tiny_experts(family, folder / "model")
    blueprint = tiny_model.blueprint()
    assert experts_of(blueprint) == experts
    places = expert_places(blueprint, len(kept[0]))
    chosen = {layer.layer: kept[min(i, 1)] for i, layer in enumerate(places.layers)}
    selection = places.select(chosen)
    assert Selection.from_json(json.loads(json.dumps(selection.to_json()))) == selection
    source = SelectedSource(tiny_model.source, selection)
    specs = source.specs()
    tensors = source.read(specs)
    assert {n: tuple(t.shape) for n, t in tensors.items()} == {n: s.shape for n, s in specs.items()}
    fused = [n for n, taken in selection.taken.items() if specs[n].shape[0] == len(taken.kept)]
    for name in fused:
        assert torch.equal(source.read_block(name, 1), tensors[name][1])
    after = folder / "after"
    after.mkdir()
    config = fewer_experts(tiny_model.config, experts, len(kept[0]))
    (after / "config.json").write_text(json.dumps(config))
    whole = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    save_file(whole, after / "model.safetensors", metadata={"format": "pt"})
    found, original = logits(loaded(after)), loaded(folder / "model")
    assert not torch.allclose(logits(original), found, rtol=0.01)
    gone = {name: [e for e in range(experts) if e not in kept] for name, kept in chosen.items()}
    with never_chosen(original, gone, experts):
        same(found, logits(original))


@pytest.mark.parametrize(
    "family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in EXPERTS]
)
def test_a_model_with_fewer_experts_loads_and_computes_what_is_left(
    family: str, tmp_path: Path
) -> None:
    check(family, tmp_path, KEPT, 4)


def test_groups_of_a_router_keep_as_many_experts_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grouped = {"n_routed_experts": 8, "n_group": 2, "topk_group": 1}
    monkeypatch.setitem(families.EXPERTS, "deepseek_v3", EXPERTS["deepseek_v3"] | grouped)
    check("deepseek_v3", tmp_path, ((0, 2, 3, 5, 6, 7),) * 2, 8)


@pytest.mark.parametrize(
    ("counts", "sparsity", "wanted"),
    [
        (Counts(experts=8, chosen=2), 0.25, 6),
        (Counts(experts=128, chosen=8), 0.3, 90),
        (Counts(experts=100, chosen=2), 0.29, 71),
        (Counts(experts=256, chosen=8, groups=8, chosen_groups=4), 0.25, 192),
        (Counts(experts=256, chosen=8, groups=8, chosen_groups=4), 0.26, 192),
        (Counts(experts=8, chosen=2), 0.1, "prunes none of 8 experts"),
        (Counts(experts=8, chosen=6), 0.5, "it is sent to 6"),
        (Counts(experts=32, chosen=8, groups=4, chosen_groups=1), 0.25, "may reach 6"),
    ],
)
def test_how_many_experts_are_left(counts: Counts, sparsity: float, wanted: Any) -> None:
    if isinstance(wanted, int):
        assert counts.left(sparsity) == wanted
        return
    with pytest.raises(UserError, match=wanted):
        counts.left(sparsity)


def test_a_dense_model_has_no_experts_to_prune(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no routed experts"):
        experts_of(tiny("llama", tmp_path).blueprint())
