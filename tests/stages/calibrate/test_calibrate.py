"""Calibrating a layer: statistics against float64 oracles, outputs against the full model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import StageFailed
from tests.stages.calibrate.conftest import Scene
from tests.stages.calibrate.oracle import counted, inputs_of, tokens

Make = Callable[..., Scene]
PADDED = (24, 7, 24, 15, 3)


def chained(scene: Scene, index: int, *outputs: str) -> dict[str, dict[str, torch.Tensor]]:
    """Run the layers before `index` for their activations, then `index` for `outputs`."""
    for before in range(index):
        scene.calibrate(before, "activations")
    drafts = scene.calibrate(index, *outputs)
    return {name: load_file(d.file(f"{name}.safetensors")) for name, d in drafts.items()}


@pytest.mark.parametrize(
    "family", ["llama", "qwen2", "gemma2", "phi3", "gemma4_text", "zamba2", "bloom", "opt"]
)
@pytest.mark.parametrize("lengths", [(24,) * 5, PADDED], ids=["packed", "padded"])
def test_statistics_equal_those_of_a_plain_forward(
    family: str, lengths: tuple[int, ...], scene: Make
) -> None:
    made = scene(family, lengths=lengths)
    found = chained(made, 2, "gram", "absmax", "range")
    wanted, _ = inputs_of(made, made.blueprint.members[2])

    leaders = made.calibrate(2, "gram")["gram"].meta["groups"]
    assert set(leaders) == set(wanted) == {x.name for x in made.blueprint.layers[2].linears}
    assert set(leaders.values()) == set(found["gram"])
    for name, x in wanted.items():
        leader = leaders[name]
        torch.testing.assert_close(
            found["gram"][leader].double(), x.T @ x, rtol=1e-4, atol=1e-4 * float((x.T @ x).max())
        )
        torch.testing.assert_close(found["absmax"][leader].double(), x.abs().amax(0))
        batches = found["range"][leader].double()
        extremes = torch.stack((batches[:, 0].amin(), batches[:, 1].amax()))
        torch.testing.assert_close(extremes, torch.stack(x.aminmax()))
        assert batches.shape == (-(-len(tokens(made)[0]) // 2), 2)


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
@pytest.mark.parametrize("lengths", [(24,) * 5, PADDED], ids=["packed", "padded"])
def test_tokens_that_do_not_count_are_in_no_statistic(
    family: str, lengths: tuple[int, ...], scene: Make
) -> None:
    made = scene(family, lengths=lengths)
    before = [made.calibrate(i, "activations")["activations"] for i in range(2)]
    whole = [load_file(b.file("0001.safetensors"))["hidden"] for b in before]
    counted(made)
    found = chained(made, 1, "gram", "absmax", "range", "histogram")
    wanted, _ = inputs_of(made, made.blueprint.members[1])
    meta = made.calibrate(1, "gram")["gram"].meta
    rows = int(tokens(made)[1].sum())
    assert rows < sum(lengths) * 0.7
    for name in made.blueprint.layers[1].linears:
        if name.name not in wanted or name.expert:
            continue
        x, leader = wanted[name.name], meta["groups"][name.name]
        assert meta["tokens"][leader] == rows == len(x)
        gram = found["gram"][leader].double()
        torch.testing.assert_close(gram, x.T @ x, rtol=1e-4, atol=1e-4 * float(gram.max()))
        torch.testing.assert_close(found["absmax"][leader].double(), x.abs().amax(0))
        low, high = x.aminmax()
        batches = found["range"][leader].double()
        torch.testing.assert_close(batches[:, 0].amin(), low)
        torch.testing.assert_close(batches[:, 1].amax(), high)
        assert int(found["histogram"][leader][:, 1].sum()) == x.numel()
    after = [made.calibrate(i, "activations")["activations"] for i in range(2)]
    same = [load_file(a.file("0001.safetensors"))["hidden"] for a in after]
    assert all(map(torch.equal, whole, same))


def test_linears_that_see_the_same_tensor_share_one_statistic(scene: Make) -> None:
    made = scene("llama", lengths=PADDED)
    meta = made.calibrate(0, "gram")["gram"].meta
    layer = "model.layers.0"
    assert meta["groups"] == {
        f"{layer}.self_attn.q_proj": f"{layer}.self_attn.q_proj",
        f"{layer}.self_attn.k_proj": f"{layer}.self_attn.q_proj",
        f"{layer}.self_attn.v_proj": f"{layer}.self_attn.q_proj",
        f"{layer}.self_attn.o_proj": f"{layer}.self_attn.o_proj",
        f"{layer}.mlp.gate_proj": f"{layer}.mlp.gate_proj",
        f"{layer}.mlp.up_proj": f"{layer}.mlp.gate_proj",
        f"{layer}.mlp.down_proj": f"{layer}.mlp.down_proj",
    }
    assert set(meta["tokens"].values()) == {sum(PADDED)}


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "mistral"])
def test_activations_equal_the_full_models_to_the_bit(family: str, scene: Make) -> None:
    made = scene(family, lengths=(24,) * 4)
    for index in range(4):
        made.calibrate(index, "activations")
    _, outputs = inputs_of(made, made.blueprint.members[0])
    for batch in range(2):
        for index in range(4):
            path = made.worker.root / f"activations{index}" / f"{batch:04d}.safetensors"
            assert torch.equal(load_file(path)["hidden"], outputs[4 * batch + index])


def test_activations_do_not_depend_on_what_else_is_wanted(scene: Make) -> None:
    made = scene("qwen3_moe", lengths=PADDED)
    alone = made.calibrate(0, "activations")["activations"].file("0001.safetensors").read_bytes()
    both = made.calibrate(0, "activations", "gram")["activations"]
    assert both.file("0001.safetensors").read_bytes() == alone


def test_every_expert_sees_all_tokens(scene: Make) -> None:
    made = scene("mixtral", lengths=PADDED)
    gram = made.calibrate(0, "gram")["gram"]
    meta, values = gram.meta, load_file(gram.file("gram.safetensors"))
    experts = [x.name for x in made.blueprint.layers[0].linears if x.expert]
    assert len(experts) == 12
    assert {meta["tokens"][meta["groups"][name]] for name in experts} == {sum(PADDED)}
    first = "model.layers.0.mlp.experts.0.gate_proj"
    inputs = {meta["groups"][n] for n in experts if not n.endswith("down_proj")}
    assert inputs == {first} and len(values) == 3 + 4


def test_routed_experts_see_their_own_tokens(scene: Make) -> None:
    made = scene("mixtral", lengths=PADDED, experts="routed")
    meta = made.calibrate(0, "gram")["gram"].meta
    seen = [
        meta["tokens"].get(f"model.layers.0.mlp.experts.{index}.down_proj", 0) for index in range(4)
    ]
    assert sum(seen) == 2 * sum(PADDED)  # two experts a token
    assert len(set(seen)) > 1


def test_an_expert_that_no_token_is_routed_to_is_not_in_the_statistic(scene: Make) -> None:
    made = scene("qwen3_moe", lengths=(1,), experts="routed")
    meta = made.calibrate(0, "gram")["gram"].meta
    experts = {name.split(".")[5] for name in meta["groups"] if ".experts." in name}
    assert len(experts) == 2


def test_the_last_batch_may_be_smaller(scene: Make) -> None:
    made = scene("llama", lengths=PADDED)
    draft = made.calibrate(0, "activations")["activations"]
    shapes = [load_file(path)["hidden"].shape for path in sorted(draft.path.iterdir())]
    assert shapes == [(2, 24, 64), (2, 24, 64), (1, 24, 64)]
    assert draft.meta["batches"] == 3
    assert tokens(made)[0].shape == (5, 24)


def test_activations_that_are_not_finite_are_named(scene: Make) -> None:
    made = scene("llama", num_hidden_layers=1)
    weights = dict(made.model.source.tensors)
    weights["model.layers.0.mlp.down_proj.weight"][3, 5] = float("inf")
    save_file(weights, made.model.path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageFailed, match=r"activations of model.layers.0 are not finite"):
        made.calibrate(0, "gram")
