"""Slow, plain oracles in float64, and the weights that the tests share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.quant_scheme import PRESET_SCHEMES
from torch import Tensor

from stages.compress.grid import Quantized, grid_of
from stages.compress.solvers.rtn import with_codes
from stages.formats.codes import decode
from stages.formats.input_params import InputParams
from stages.formats.pack import pack

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
    """What is stored for ``quantized``, and the weight that compressed-tensors reads back.

    What is stored has the bytes that compressed-tensors' own packing gives the same codes.
    """
    name = infer_module_format(torch.nn.Linear, scheme).value
    compressor = BaseCompressor.get_value_from_registry(name)
    assert scheme.weights is not None
    codes = with_codes(quantized, grid_of(scheme.weights)).codes
    assert codes is not None
    params = {
        "scale": quantized.scale,
        "zero_point": quantized.zero_point,
        "global_scale": quantized.global_scale,
    }
    scheme = scheme.model_copy(update={"format": name})
    stored = pack(codes, **params, inputs=InputParams(), scheme=scheme)
    theirs = packed_by_library(codes, params, scheme)
    assert stored.keys() == theirs.keys()
    for part, tensor in theirs.items():
        assert (tensor.dtype, tensor.shape) == (stored[part].dtype, stored[part].shape), part
        assert torch.equal(_bytes(tensor), _bytes(stored[part])), part
    return stored, compressor.decompress(stored, scheme)["weight"]


def packed_by_library(
    codes: Tensor, params: Mapping[str, Tensor | None], scheme: QuantizationScheme
) -> dict[str, Tensor]:
    """What compressed-tensors stores for these codes under these parameters."""
    compressor = BaseCompressor.get_value_from_registry(str(scheme.format))
    given = {f"weight_{name}": value for name, value in params.items() if value is not None}
    values = decode(codes)
    if codes.dtype == torch.uint8:  # it knows the code of -0 by what rounds to it
        values = torch.where(codes == 8, -0.125, values)
    # the codes' own values, under scales of one: nothing is rounded
    plain = {"weight_scale": torch.ones_like(given["weight_scale"])}
    if "weight_zero_point" in given:
        plain["weight_zero_point"] = torch.zeros_like(given["weight_zero_point"])
    if "weight_global_scale" in given:
        plain["weight_global_scale"] = torch.ones(1)
    apart = compressor.compress({"weight": values, **plain}, scheme)
    main = "weight_packed" if "weight_packed" in apart else "weight"
    whole = compressor.compress({"weight": values, **given}, scheme)
    return {**whole, main: apart[main]}


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
