"""The weight that GPTQ is aimed at, against least squares in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stages.compress.aimed.target_weight import difference_left, target_weights
from stages.compress.solvers.numerical_error import NumericalError

TOKENS, IN, OUT = 200, 24, 10


@pytest.fixture(scope="module")
def given() -> dict[str, Tensor]:
    """W, inputs A of the original model and B of the compressed one, D: all float64."""
    draw = torch.Generator().manual_seed(0)
    W, A, noise = (
        torch.randn(*shape, generator=draw, dtype=torch.float64)
        for shape in ((OUT, IN), (TOKENS, IN), (TOKENS, IN))
    )
    B = A + 0.2 * noise + 0.1 * A.roll(1, dims=1)
    return {"W": W, "B": B, "D": (A - B) @ W.T, "H": B.T @ B}


def aimed(given: dict[str, Tensor], strength: float, damping: float) -> Tensor:
    C = given["D"].T @ given["B"]
    (found,) = target_weights(
        [given["W"].float()], [C.float()], given["H"].float(), strength=strength, damping=damping
    )
    return found


def test_it_is_the_least_squares_solution_for_the_wanted_outputs(given: dict[str, Tensor]) -> None:
    W, B = given["W"], given["B"]
    best = torch.linalg.lstsq(B, B @ W.T + given["D"]).solution.T
    torch.testing.assert_close(aimed(given, 1.0, 1e-9), best.float(), rtol=1e-4, atol=1e-5)
    assert torch.equal(aimed(given, 0.0, 0.05), W.float())
    halfway = (W + best).float() / 2
    torch.testing.assert_close(aimed(given, 0.5, 1e-9), halfway, rtol=1e-4, atol=1e-5)


def test_damping_is_a_penalty_on_the_correction(given: dict[str, Tensor]) -> None:
    """min |D - B S^T|^2 + damping * mean(diag H) |S|^2, by rows that are appended."""
    W, B, D = given["W"], given["B"], given["D"]
    weight = (0.3 * given["H"].diagonal().mean()).sqrt()
    more = torch.cat([B, weight * torch.eye(IN, dtype=torch.float64)])
    wanted = torch.cat([D, torch.zeros(IN, OUT, dtype=torch.float64)])
    step = torch.linalg.lstsq(more, wanted).solution.T
    torch.testing.assert_close(aimed(given, 1.0, 0.3), (W + step).float(), rtol=1e-4, atol=1e-5)


def test_weights_that_share_inputs_are_each_aimed_at_their_own(given: dict[str, Tensor]) -> None:
    C = (given["D"].T @ given["B"]).float()
    both = target_weights(
        [given["W"].float(), 2 * given["W"].float()],
        [C, 0 * C],
        given["H"].float(),
        strength=0.5,
        damping=0.05,
    )
    assert torch.equal(both[0], aimed(given, 0.5, 0.05))
    assert torch.equal(both[1], 2 * given["W"].float())


def test_the_difference_left_is_that_of_real_outputs(given: dict[str, Tensor]) -> None:
    W, B, D = given["W"], given["B"], given["D"]
    Q = (W * 4).round() / 4
    left = difference_left(
        float(D.square().sum()), W.float(), Q.float(), given["H"].float(), (D.T @ B).float()
    )
    assert left == pytest.approx(float((D - B @ (Q - W).T).square().sum()), rel=1e-4)
    assert difference_left(7.0, W, W, given["H"].float(), (D.T @ B).float()) == 7.0


def test_numerical_trouble_is_told(given: dict[str, Tensor]) -> None:
    W, C = given["W"].float(), (given["D"].T @ given["B"]).float()
    with pytest.raises(NumericalError, match="no input channel was ever active"):
        target_weights([W], [C], torch.zeros(IN, IN), strength=0.5, damping=0.05)
    with pytest.raises(NumericalError, match="non-finite"):
        target_weights([W], [C], torch.full((IN, IN), torch.nan), strength=0.5, damping=0.05)
