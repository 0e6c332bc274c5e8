"""Orthogonal matrices Q that rotate channels, and x Q without making Q where it has factors.

SpinQuant, arXiv:2405.16406; QuaRot, arXiv:2404.00456.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt
from typing import TYPE_CHECKING

from stages.compute.hadamard import hadamard, orders

if TYPE_CHECKING:
    from torch import Generator, Tensor

HADAMARD = "hadamard"
SIGNED = "random-hadamard"
RANDOM = "random-matrix"
TYPES = (HADAMARD, SIGNED, RANDOM)


@dataclass(frozen=True, kw_only=True, slots=True)
class RotationSpec:
    """An orthogonal matrix [size, size] in a few words.

    `type`: "hadamard"; "random-hadamard", with random signs before it; "random-matrix", uniform
    among orthogonal ones. Channels are mixed in blocks of `block`. `keeps_mean`: followed by the
    reflection that makes Q map the vector of ones to itself, so that a LayerNorm, which takes the
    mean away, gives the rotated of what it gave.
    """

    size: int
    block: int
    type: str = HADAMARD
    seed: int = 0
    keeps_mean: bool = False


class Rotation:
    """The matrix Q of a spec, applied in float64 where the channels lie.

    Q is diag(signs) (I x F1 x F2 x ...) with Kronecker products x, then I - 2 v v^T if there is a
    reflection. Hadamard factors are 1 and -1: sums of a model's 16-bit weights are exact, in
    whatever order, and scaled once at the end.
    """

    def __init__(self, spec: RotationSpec) -> None:
        import torch

        draw = torch.Generator().manual_seed(spec.seed)
        self.spec = spec
        self.signs: Tensor | None = None
        if spec.type == SIGNED:
            self.signs = 2.0 * torch.randint(2, (spec.size,), generator=draw).double() - 1.0
        if spec.type == RANDOM:
            self.factors = [random_orthogonal(spec.block, draw)]
        else:
            known = orders(spec.block)
            if known is None:
                raise ValueError(f"no Hadamard matrix of order {spec.block} is known here")
            self.factors = [hadamard(order) for order in known]
        self.scale = 1.0 if spec.type == RANDOM else 1.0 / sqrt(spec.block)
        self.normal: Tensor | None = None
        if spec.keeps_mean:
            ones = torch.full((1, spec.size), 1.0 / sqrt(spec.size), dtype=torch.float64)
            # x Q = x for x = ones needs ones H reflected to ones: by the plane between the two
            normal = (self.apply(ones) - ones)[0]
            length = normal.norm()
            self.normal = normal / length if float(length) > 1e-12 else None

    def apply(self, x: Tensor) -> Tensor:
        """x Q for each run of `size` channels of the last dimension, float64 [..., m * size]."""
        import torch

        spec = self.spec
        y = x.double().reshape(-1, spec.size)
        if self.signs is not None:
            y = y * self.signs.to(y.device)
        widths = [len(factor) for factor in self.factors]
        for index, factor in enumerate(factor.to(y.device) for factor in self.factors):
            after = prod(widths[index + 1 :])
            if after == 1:
                y = y.reshape(-1, len(factor)) @ factor
            else:
                y = torch.matmul(factor.T, y.reshape(-1, len(factor), after))
        y = y.reshape(-1, spec.size) * self.scale
        if self.normal is not None:
            normal = self.normal.to(y.device)
            y = y - 2.0 * (y * normal).sum(dim=1, keepdim=True) * normal
        return y.reshape(x.shape)


def random_orthogonal(size: int, draw: Generator) -> Tensor:
    """A random orthogonal matrix, float64 [size, size], uniform (Haar): QR of a normal one."""
    import torch

    normal = torch.randn(size, size, generator=draw, dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    unique: Tensor = q * torch.sign(torch.diagonal(r))
    return unique
