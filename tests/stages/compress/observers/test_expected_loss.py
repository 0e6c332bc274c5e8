"""What a module's error is expected to cost, of all rows and of some."""

from __future__ import annotations

import pytest
import torch

from stages.compress.sensitivity_run import ROWS, damage, row_energies, sampled


def test_a_row_counts_by_how_much_the_loss_feels_it() -> None:
    errors, fisher = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.0, 10.0])
    assert damage(fisher, errors, torch.ones(3)) == pytest.approx(0.5 * (1 + 40))


def test_row_energies_are_those_of_the_outputs_of_all_tokens() -> None:
    x, rows = torch.randn(50, 6), torch.randn(3, 6)
    expected = (x @ rows.T).square().sum(dim=0)
    torch.testing.assert_close(row_energies(rows, x.T @ x), expected)


def test_some_rows_stand_for_all_by_their_sizes() -> None:
    draw = torch.Generator().manual_seed(0)
    count = 4 * ROWS
    fisher, sizes = (torch.rand(count, generator=draw).exp().pow(4) for _ in range(2))
    errors = 0.01 * sizes * (0.9 + 0.2 * torch.rand(count, generator=draw))
    whole = damage(fisher, errors, sizes)
    assert damage(fisher, sampled(errors), sizes) == pytest.approx(whole, rel=0.02)
    plain = 0.5 * float((sampled(fisher) * sampled(errors)).sum()) * count / ROWS
    assert abs(plain - whole) > abs(damage(fisher, sampled(errors), sizes) - whole)


def test_rows_that_the_loss_does_not_feel_cost_nothing() -> None:
    count = 2 * ROWS
    assert damage(torch.zeros(count), torch.ones(ROWS), torch.ones(count)) == 0.0
