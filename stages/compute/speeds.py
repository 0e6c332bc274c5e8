"""Measured speeds of this machine: forward and backward passes, products, copies of files.

A pass is that of a small decoder layer, attention and norms among it, so that its speed is that of
a layer and not of a product alone. A node's fixed cost, and the speed at which a checkpoint is
checked, are not measured but assumed.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from stages.compute.timing import least_seconds
from stages.compute.work import BACKWARD, CHECK, COPY, FORWARD, LEARN, NODE, PRODUCT

HIDDEN, INNER, HEADS, TOKENS, BATCH = 1024, 2816, 16, 512, 4
LEARNED = 1 << 20
COPIED = 1 << 26
NODES = {"cpu": 5.0}
"""Nodes a second beside their arithmetic. An assumption, as is that of a GPU: one in 0.3 s."""
CHECKED = 2e8
"""Bytes of weights a second that a core or two check. An assumption."""


def speeds(device: str, threads: int) -> Mapping[str, float]:
    """Kind of work (:mod:`stages.compute.work`) -> how much of it a second `device` does."""
    torch.set_num_threads(threads)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    layer = _Layer(device, dtype)
    operations = 2.0 * layer.parameters * BATCH * TOKENS
    x = torch.randn(BATCH, TOKENS, HIDDEN, device=device, dtype=dtype)

    def forward() -> None:
        with torch.no_grad():
            layer(x)

    def backward() -> None:
        layer(x).square().mean().backward()

    a = torch.randn(HIDDEN, HIDDEN, device=device)
    ahead = least_seconds(forward, device)
    # a step of learning is counted as 3.2 forward passes, of which this is one, and its way back
    both = least_seconds(backward, device)
    return {
        FORWARD: operations / ahead,
        BACKWARD: 3.2 * operations / (both + 0.2 * ahead),
        PRODUCT: 2.0 * HIDDEN**3 / least_seconds(lambda: a @ a, device),
        LEARN: LEARNED / least_seconds(_step(device), device),
        COPY: _copied(),
        CHECK: CHECKED * max(1, threads) / 2,
        NODE: NODES.get(device, 1 / 0.3),
    }


class _Layer:
    """A decoder layer with random weights: norm, attention, norm, gated product."""

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        def draw(rows: int, columns: int) -> Tensor:
            drawn = torch.randn(rows, columns, device=device) * columns**-0.5
            weight: Tensor = drawn.to(dtype).requires_grad_()
            return weight

        self.qkvo = [draw(HIDDEN, HIDDEN) for _ in range(4)]
        self.gate, self.up = draw(INNER, HIDDEN), draw(INNER, HIDDEN)
        self.down = draw(HIDDEN, INNER)
        self.parameters = 4 * HIDDEN**2 + 3 * HIDDEN * INNER

    def __call__(self, x: Tensor) -> Tensor:
        normed = F.rms_norm(x, (HIDDEN,))
        q, k, v = (_heads(F.linear(normed, weight)) for weight in self.qkvo[:3])
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + F.linear(seen.transpose(1, 2).flatten(2), self.qkvo[3])
        normed = F.rms_norm(x, (HIDDEN,))
        inner = F.silu(F.linear(normed, self.gate)) * F.linear(normed, self.up)
        output: Tensor = x + F.linear(inner, self.down)
        return output


def _heads(x: Tensor) -> Tensor:
    heads: Tensor = x.unflatten(-1, (HEADS, -1)).transpose(1, 2)
    return heads


def _step(device: str) -> Callable[[], object]:
    """One step of an optimizer with two moments over `LEARNED` latent codes."""
    latent = torch.zeros(LEARNED, device=device, requires_grad=True)
    latent.grad = torch.ones_like(latent)
    adam = torch.optim.Adam([latent], lr=1e-3)
    return adam.step


def _copied() -> float:
    """Bytes a second that are written to a file and synced."""
    block = os.urandom(COPIED)
    with tempfile.TemporaryFile() as file:
        began = time.perf_counter()
        file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return COPIED / (time.perf_counter() - began)
