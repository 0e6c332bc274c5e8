"""Slow, plain oracles in float64, and the weights that the tests share."""

from __future__ import annotations

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.quant_scheme import PRESET_SCHEMES
from torch import Tensor

from stages.compress.grid import Quantized

PRESETS = tuple(name for name, parts in PRESET_SCHEMES.items() if parts)


def int4(group_size: int | None = 32, *, symmetric: bool = True, bits: int = 4) -> QuantizationArgs:
    """Integer args by group, or by channel without a group size."""
    strategy = "channel" if group_size is None else "group"
    return QuantizationArgs(
        num_bits=bits, strategy=strategy, group_size=group_size, symmetric=symmetric
    )


def problem(
    rows: int = 48, columns: int = 128, seed: int = 0, tokens: int = 600
) -> tuple[Tensor, Tensor]:
    """A bfloat16 weight [rows, columns] and the Gram matrix of correlated, uneven inputs."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * 0.05
    mix = torch.randn(columns, columns, generator=generator) / columns**0.5
    mix += torch.eye(columns)
    spread = (torch.rand(columns, generator=generator) * 3).exp()
    inputs = torch.randn(tokens, columns, generator=generator) @ mix * spread
    return weight.bfloat16(), inputs.T @ inputs


def objective(weight: Tensor, quantized: Tensor, H: Tensor) -> float:
    """tr(E H E^T) in float64."""
    e = weight.double() - quantized.double()
    return float(((e @ H.double()) * e).sum())


def damped(H: Tensor, fraction: float = 0.01) -> Tensor:
    """H with the damping of the GPTQ paper, float64."""
    H = H.double()
    return H + fraction * H.diagonal().mean() * torch.eye(H.shape[0], dtype=torch.float64)


def gptq_paper(weight: Tensor, H: Tensor, scale: Tensor, order: Tensor) -> Tensor:
    """GPTQ as its paper writes it, float64, int4 symmetric, given per-entry scales [out, in]."""
    w, s = weight.double()[:, order].clone(), scale.double()[:, order]
    inverse = torch.linalg.inv(damped(H)[order][:, order])
    upper = torch.linalg.cholesky(inverse, upper=True)
    q = torch.zeros_like(w)
    for k in range(w.shape[1]):
        q[:, k] = (w[:, k] / s[:, k]).round().clamp(-8, 7) * s[:, k]
        error = (w[:, k] - q[:, k]) / upper[k, k]
        w[:, k:] -= error[:, None] * upper[k, k:]
    return q[:, torch.argsort(order)]


def through_checkpoint(
    quantized: Quantized, scheme: QuantizationScheme
) -> tuple[dict[str, Tensor], Tensor]:
    """What compressed-tensors stores for ``quantized``, and the weight it reads back."""
    name = infer_module_format(torch.nn.Linear, scheme).value
    compressor = BaseCompressor.get_value_from_registry(name)
    rounded = quantized.weight if quantized.original is None else quantized.original
    state = {"weight": rounded, "weight_scale": quantized.scale}
    if quantized.zero_point is not None:
        state["weight_zero_point"] = quantized.zero_point
    if quantized.global_scale is not None:
        state["weight_global_scale"] = quantized.global_scale
    stored = compressor.compress(state, scheme)
    return stored, compressor.decompress(stored, scheme)["weight"]
