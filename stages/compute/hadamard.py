"""Hadamard matrices by construction: Sylvester's doubling of those that Paley made from primes.

Entries are 1 and -1, and H H^T = n I. Paley, On orthogonal matrices, J. Math. Phys. 12 (1933).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

WIDEST = 64
"""Powers of two are applied in factors of at most this order."""


def orders(n: int) -> tuple[int, ...] | None:
    """Orders of known Hadamard matrices whose Kronecker product has order n; None: there is none.

    Powers of two first, then one of Paley's if n needs it: 576 = 16 x 36.
    """
    power = 1
    while n % (2 * power) == 0:
        power *= 2
    for twos in (2**k for k in range(power.bit_length() - 1, -1, -1)):
        rest = n // twos
        if rest == 1 or _paley(rest):
            return (*_powers(twos), *((rest,) if rest > 1 else ())) or (1,)
    return None


def nearest_block(n: int) -> int:
    """The largest known order that divides n: at least 1."""
    return next(m for m in range(n, 0, -1) if n % m == 0 and orders(m) is not None)


def hadamard(order: int) -> Tensor:
    """A Hadamard matrix, float64 [order, order]: of a power of two, or one of Paley's orders.

    Raises ValueError for another order: see :func:`orders`.
    """
    import torch

    if order & (order - 1) == 0:
        matrix = torch.ones(1, 1, dtype=torch.float64)
        while len(matrix) < order:
            matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
        return matrix
    kind = _paley(order)
    if kind == 1:
        return _jacobsthal(order - 1, sign=-1.0) + torch.eye(order, dtype=torch.float64)
    if kind == 2:
        conference = _jacobsthal(order // 2 - 1, sign=1.0)
        plus = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
        minus = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
        return torch.kron(conference, plus) + torch.kron(torch.eye(order // 2).double(), minus)
    raise ValueError(f"no Hadamard matrix of order {order} is made here at once")


def _paley(n: int) -> int:
    """Which construction of Paley's gives order n: 1 (n - 1 a prime), 2 (n / 2 - 1), 0: none."""
    if n % 4:
        return 0
    if (n - 1) % 4 == 3 and _prime(n - 1):
        return 1
    return 2 if (n // 2 - 1) % 4 == 1 and _prime(n // 2 - 1) else 0


def _jacobsthal(q: int, sign: float) -> Tensor:
    """The conference matrix of a prime q, float64 [q + 1, q + 1]: zeros on its diagonal.

    Its inside is 1 where the difference of the indices is a square modulo q, else -1; its first
    column is `sign`.
    """
    import torch

    squares = {i * i % q for i in range(1, q)}
    character = torch.tensor([0.0] + [1.0 if i in squares else -1.0 for i in range(1, q)])
    index = torch.arange(q)
    matrix = torch.zeros(q + 1, q + 1, dtype=torch.float64)
    matrix[0, 1:], matrix[1:, 0] = 1.0, sign
    matrix[1:, 1:] = character[(index[:, None] - index) % q].double()
    return matrix


def _prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def _powers(n: int) -> tuple[int, ...]:
    found: list[int] = []
    while n > 1:
        found.append(min(n, WIDEST))
        n //= found[-1]
    return tuple(found)
