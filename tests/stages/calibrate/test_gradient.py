"""The backward pass, layer by layer, against autograd through transformers' own whole model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import StageFailed
from stages.calibrate.config import LayerConfig
from stages.calibrate.gradient import FISHER, GRADIENT, Gradient
from stages.calibrate.gradient_outside import EndingConfig, GradientOutside
from stages.calibrate.gradient_outside_run import surprise
from stages.calibrate.gradient_run import explained
from tests.stages.calibrate.conftest import Scene
from tests.stages.calibrate.fakes import FakeArtifact
from tests.stages.calibrate.oracle import counted, tokens

Make = Callable[..., Scene]


def backward(scene: Scene) -> dict[str, Tensor]:
    """Module -> its mean squares, from a chain of stages over all layers."""
    count = len(scene.blueprint.members)
    config = LayerConfig()
    for index in range(count):
        scene.calibrate(index, "activations", batch_size=config.calibrate.batch_size)
    boundaries = [FakeArtifact(scene.worker.root / f"activations{k}") for k in range(count)]
    inputs = {**scene.inputs, "activations": boundaries[-1]}
    ending = scene.worker.task("", inputs, {"out": "ending"})
    GradientOutside(EndingConfig()).run(ending)
    found: dict[str, Tensor] = {}
    for index in reversed(range(count)):
        inputs = {**scene.inputs, "ending": FakeArtifact(scene.worker.root / "ending")}
        if index:
            inputs["activations"] = boundaries[index - 1]
        if index + 1 < count:
            inputs[GRADIENT] = FakeArtifact(scene.worker.root / f"gradient{index + 1}")
        outputs = {FISHER: f"fisher{index}"} | ({GRADIENT: f"gradient{index}"} if index else {})
        Gradient(config).run(scene.worker.task(scene.blueprint.members[index], inputs, outputs))
        found |= load_file(scene.worker.root / f"fisher{index}" / "fisher.safetensors")
    return found


def whole(scene: Scene, *, marked: bool = False) -> dict[str, Tensor]:
    """The same by one backward pass a row, for all Linears of transformers' model.

    `marked`: rows are full, and only some of their tokens count.
    """
    original, draw = scene.model.original(), torch.Generator().manual_seed(0)
    sums: dict[str, Tensor] = {}
    ids, valid = tokens(scene)

    def note(name: str) -> Any:
        def add(g: Tensor) -> None:
            squares = g.reshape(-1, g.shape[-1]).square().sum(0)
            sums[name] = sums.get(name, torch.zeros(())) + squares

        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            output.register_hook(add)

        return hook

    for parameter in original.parameters():
        parameter.requires_grad_()
    for name, module in original.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(note(name))
    for row, mask in zip(ids, valid, strict=True):
        length = int(mask.nonzero().max()) + 1 if not marked else len(row)
        scores = original(row[None][:, :length], use_cache=False).logits
        above = surprise(scores, draw)
        if marked:  # a token is predicted at the one before it
            above[0, :-1] *= mask[1:, None]
            above[0, -1] = 0
        scores.backward(above)
    return {name: total / valid.sum() for name, total in sums.items()}


@pytest.mark.parametrize(
    "family",
    [
        *("llama", "qwen3_moe", "gemma3n_text"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("gemma2", "qwen3", "gemma4_text")
        ),
    ],
)
@pytest.mark.parametrize("lengths", [(24, 24, 24, 24, 24), (24, 7, 24, 1, 15)])
def test_the_chain_gives_what_one_backward_pass_gives(
    scene: Make, family: str, lengths: tuple[int, ...]
) -> None:
    made = scene(family, lengths=lengths)
    found, expected = backward(made), whole(made)
    linears = [linear.name for layer in made.blueprint.layers for linear in layer.linears]
    assert found.keys() == set(linears)
    compared = found.keys() & expected.keys()
    assert any("o_proj" in name for name in compared)
    for name in compared:
        assert found[name].max() > 0
        torch.testing.assert_close(
            found[name], expected[name], rtol=1e-3, atol=1e-4 * float(expected[name].max())
        )


def test_the_loss_of_tokens_that_do_not_count_is_left_out(scene: Make) -> None:
    made = scene("llama", lengths=(24,) * 5)
    counted(made)
    found, expected = backward(made), whole(made, marked=True)
    for name in found.keys() & expected.keys():
        torch.testing.assert_close(
            found[name], expected[name], rtol=1e-3, atol=1e-4 * float(expected[name].max())
        )


def test_mean_squares_foretell_the_divergence_of_a_perturbed_layer(scene: Make) -> None:
    """KL(p || q) is half the sum of squared derivatives times squared changes, if these are small.

    The changes are random and unlike each other, so that what the sum leaves out is small.
    """
    made = scene("llama", lengths=(24,) * 5)
    name = "model.layers.1.mlp.down_proj"
    squares = backward(made)[name]
    original = made.model.original()
    ids, _ = tokens(made)
    with torch.no_grad():
        before = torch.log_softmax(original(ids, use_cache=False).logits.double(), -1)
        size = 1e-3
        draw = torch.Generator().manual_seed(1)

        def shaken(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            return output + size * torch.randn(output.shape, generator=draw)

        original.get_submodule(name).register_forward_hook(shaken)
        found = 0.0
        for _ in range(20):
            after = torch.log_softmax(original(ids, use_cache=False).logits.double(), -1)
            found += float((before.exp() * (before - after)).sum(-1).mean()) / 20
    predicted = 0.5 * size**2 * float(squares.sum())
    assert predicted == pytest.approx(found, rel=0.3)


def test_what_cannot_be_differentiated_is_told_with_a_way_out() -> None:
    with pytest.raises(StageFailed, match=r"through model\.layers\.3: no grad") as raised:
        with explained("model.layers.3"):
            raise NotImplementedError("no grad for this kernel\nmore")
    assert "graph=budget_forward" in str(raised.value)
