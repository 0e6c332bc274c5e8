"""Gram matrices of a rotated model's inputs, made of the unrotated model's: as if gathered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.compute.rotation import TYPES, RotationSpec
from stages.compute.rotation_steps import RotatedTensors, Step
from stages.model.rotations.options import R1, R2, RotationOptions
from stages.model.rotations.plan import rotation_plan
from stages.model.rotations.rotated_source import RotatedSource
from stages.model.rotations.trial import Held, Trial, logits_of, parameters_of, trial_of
from stages.model.shrunken import shrunken
from stages.weights.aliased_source import Aliased
from tests.stages.model.pairs.test_finder import config
from tests.stages.model.rotations.test_prove_rotations import proven

BOTH = (R1, R2)
CASES = {"llama": BOTH, "gemma": (R1,), "mixtral": BOTH, "gpt2": (R1,), "olmo2": (R2,)}
QUICK = ("llama", "gpt2")


def grams(trial: Trial, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sums of x x^T in float64 of all Linears of the model with these tensors, by module."""
    found: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def seen(module: nn.Module, args: tuple[Any, ...]) -> None:
            del module
            x = args[0].reshape(-1, args[0].shape[-1]).double()
            found[name] = found.get(name, 0) + x.T @ x

        return seen

    with ExitStack() as stack:
        for linear in trial.bones.blueprint.linears():
            module = trial.bones.model.get_submodule(linear.name)
            stack.callback(module.register_forward_pre_hook(hook(linear.name)).remove)
        logits_of(trial.bones, tensors, trial.ids)
    return found


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_they_are_those_that_the_rotated_model_would_show(name: str) -> None:
    parsed = config(name)
    trial = trial_of(shrunken(parsed))
    blueprint = trial.bones.blueprint
    options = RotationOptions(rotations=CASES[name], type="random-matrix", block=None, seed=3)
    plan = rotation_plan(blueprint, proven(name), options)
    source = RotatedSource(Aliased(Held(trial.tensors), plan.aliases), plan)
    names = parameters_of(blueprint.untied() if plan.aliases else blueprint)
    rotated = source.read(set(names.values()))
    before = grams(trial, {n: trial.tensors[s] for n, s in parameters_of(blueprint).items()})
    after = grams(trial, {n: rotated[stored] for n, stored in names.items()})
    assert before.keys() == after.keys() and len(after) > 8
    changed = 0
    for module in after:
        made = source.rotated_gram(names[f"{module}.weight"], before[module])
        assert torch.allclose(made, after[module], rtol=0, atol=1e-9 * float(after[module].max()))
        changed += not torch.allclose(before[module], after[module], rtol=1e-3)
    assert changed  # what writes into the residual stream alone reads what it did


@pytest.mark.parametrize("kind", TYPES)
def test_channels_that_a_norm_hides_count_as_the_others_do(kind: str) -> None:
    torch.manual_seed(1)
    norm, x = torch.rand(12) + 0.5, torch.randn(40, 12, dtype=torch.float64)
    norm[[2, 7]] = 0.0
    spec = RotationSpec(size=12, block=12, type=kind)
    plan = RotatedTensors(
        rotations={"R1": spec}, steps={"q": (Step(multiply="norm"), Step(rotate="R1"))}
    )
    source = RotatedSource(Held({"norm": norm, "q": torch.randn(4, 12)}), plan)
    seen = x * norm
    known = x.clone()
    known[:, [2, 7]] = 0.0
    expected = known.T @ known
    expected.diagonal()[[2, 7]] = expected.diagonal().sum() / 10
    rotation = source.rotation(spec)
    expected = rotation.apply(rotation.apply(expected).T)
    made = source.rotated_gram("q", (seen.T @ seen).float())
    assert made.dtype == torch.float32 and torch.equal(made, made.T)
    assert torch.allclose(made.double(), expected, atol=1e-4)
    assert torch.equal(source.rotated_gram("other", made), made)
