"""Hadamard matrices are made for the widths of models, and rotations are orthogonal."""

from __future__ import annotations

from math import prod, sqrt

import pytest
import torch
from scipy.linalg import hadamard as sylvester
from torch import Tensor

from stages.compute.hadamard import hadamard, nearest_block, orders
from stages.compute.rotation import HADAMARD, RANDOM, SIGNED, TYPES, Rotation, RotationSpec

WIDTHS = (64, 80, 96, 128, 576, 768, 896, 960, 1152, 1536, 1600, 2048, 2304, 2560, 3072, 3584)
WIDER = (3840, 4096, 5120, 5376, 6144, 6656, 7168, 7680, 8192, 16384, 18432)


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


@pytest.mark.parametrize("n", (*WIDTHS, *WIDER))
def test_a_width_of_models_has_a_hadamard_matrix(n: int) -> None:
    found = orders(n)
    assert found is not None and prod(found) == n and max(found) <= 200
    for order in found:
        matrix = hadamard(order)
        assert torch.equal(matrix @ matrix.T, order * eye(order))
        assert torch.equal(matrix.abs(), torch.ones_like(matrix))


def test_powers_of_two_are_sylvesters() -> None:
    assert torch.equal(hadamard(32), torch.from_numpy(sylvester(32)).double())
    assert orders(1) == (1,) and orders(2) == (2,) and orders(576) == (16, 36)


@pytest.mark.parametrize(("n", "block"), [(172, 4), (92, 4), (30, 2), (9, 1)])
def test_a_width_without_one_has_blocks(n: int, block: int) -> None:
    assert orders(n) is None and nearest_block(n) == block
    with pytest.raises(ValueError, match="no Hadamard matrix"):
        hadamard(n)


@pytest.mark.parametrize("keeps_mean", [False, True])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("size", "block"), [(24, 24), (72, 72), (48, 12), (36, 4)])
def test_a_rotation_is_orthogonal(size: int, block: int, kind: str, *, keeps_mean: bool) -> None:
    spec = RotationSpec(size=size, block=block, type=kind, seed=5, keeps_mean=keeps_mean)
    q = Rotation(spec).apply(eye(size))
    assert torch.allclose(q @ q.T, eye(size), atol=1e-12)
    ones = torch.ones(size, dtype=torch.float64)
    assert torch.allclose(ones @ q, ones, atol=1e-10) == keeps_mean
    if not keeps_mean:
        alone = q.reshape(size // block, block, size // block, block).transpose(1, 2)
        assert all(not alone[i, j].any() for i in range(len(alone)) for j in range(i))
    if kind != RANDOM and not keeps_mean:
        assert set(q.abs().flatten().tolist()) <= {0.0, 1 / sqrt(block)}


def test_factors_are_the_kronecker_product() -> None:
    q = Rotation(RotationSpec(size=576, block=576)).apply(eye(576))
    assert torch.allclose(q, torch.kron(hadamard(16), hadamard(36)) / 24, atol=1e-15)
    signed = Rotation(RotationSpec(size=576, block=576, type=SIGNED, seed=1)).apply(eye(576))
    assert torch.equal(signed.abs(), q.abs()) and not torch.equal(signed, q)
    heads = torch.randn(3, 4 * 16, dtype=torch.float64)
    whole = torch.block_diag(*[hadamard(16) / 4] * 4)
    turned = Rotation(RotationSpec(size=16, block=16)).apply(heads)
    assert torch.allclose(turned, heads @ whole, atol=1e-14)


def test_a_seed_decides_and_the_number_of_threads_does_not() -> None:
    one, same, other = (
        Rotation(RotationSpec(size=40, block=40, type=RANDOM, seed=seed)).apply(eye(40))
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    weights = torch.randn(512, 576).bfloat16()
    spec, threads = RotationSpec(size=576, block=576, type=HADAMARD), torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(Rotation(spec).apply(weights))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)
