"""Quantized checkpoints in numpy, written by the formats' definitions and none of our code.

Every packer takes float32 weights [out, in] and gives the tensors of one module by local name, and
the float32 weight that they stand for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Packed = tuple[dict[str, Tensor], Tensor]
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=np.float32)


def stream(codes: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """Unsigned codes [n, ...] as one stream of bits along the first axis, in int32 words."""
    planes = (codes[:, None] >> np.arange(bits).reshape(-1, *[1] * (codes.ndim - 1))) & 1
    flat = planes.reshape(-1, *codes.shape[1:]).astype(np.uint8)
    flat = np.concatenate([flat, np.zeros((-len(flat) % 32, *flat.shape[1:]), np.uint8)])
    octets = np.packbits(flat, axis=0, bitorder="little").astype(np.uint32)
    words = octets[0::4] | octets[1::4] << 8 | octets[2::4] << 16 | octets[3::4] << 24
    return words.view(np.int32)


def grouped(
    weight: Tensor, bits: int, size: int, *, symmetric: bool, order: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Unsigned codes [out, in], float16 scales and unsigned zeros [out, groups]."""
    w = weight.numpy()
    top = 2**bits - 1
    groups = order.max() + 1
    scales = np.empty((w.shape[0], groups), np.float16)
    zeros = np.empty((w.shape[0], groups), np.int64)
    codes = np.empty(w.shape, np.int64)
    for g in range(groups):
        part = w[:, order == g]
        if symmetric:
            scale = np.abs(part).max(1) / (2 ** (bits - 1) - 1)
            zero = np.full(len(part), 2 ** (bits - 1))
        else:
            low, high = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
            scale = (high - low) / top
            zero = np.clip(np.round(-low / scale), 1, top).astype(np.int64)
        scales[:, g], zeros[:, g] = scale, zero
        step = scales[:, g].astype(np.float32)[:, None]
        codes[:, order == g] = np.clip(np.round(part / step) + zero[:, None], 0, top)
    return codes, scales, zeros


def dense(
    codes: np.ndarray[Any, Any],
    scales: np.ndarray[Any, Any],
    zeros: np.ndarray[Any, Any],
    order: np.ndarray[Any, Any],
) -> Tensor:
    """What the codes mean, float32."""
    scale = scales.astype(np.float32)[:, order]
    return torch.from_numpy((codes - zeros[:, order]).astype(np.float32) * scale)


def gptq(
    weight: Tensor, bits: int, size: int, *, symmetric: bool, version: int = 1, act: bool = False
) -> Packed:
    """AutoGPTQ's tensors; version 1 stores zero points minus one. `act`: columns in any group."""
    columns = weight.shape[1]
    order = np.arange(columns) // size
    if act:
        order = np.random.default_rng(0).permutation(order)
    codes, scales, zeros = grouped(weight, bits, size, symmetric=symmetric, order=order)
    stored = zeros - (1 if version == 1 else 0)
    tensors = {
        "qweight": stream(codes.T, bits),
        "qzeros": stream(stored, bits).T,
        "scales": scales.T,
        "g_idx": order.astype(np.int32),
    }
    return _torch(tensors), dense(codes, scales, zeros, order)


def awq(weight: Tensor, size: int) -> Packed:
    """AutoAWQ's tensors, version gemm."""
    order = np.arange(weight.shape[1]) // size
    codes, scales, zeros = grouped(weight, 4, size, symmetric=False, order=order)

    def words(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        found = np.zeros((values.shape[0], values.shape[1] // 8), np.uint32)
        for place, channel in enumerate(AWQ_ORDER):
            found |= values[:, channel::8].astype(np.uint32) << np.uint32(4 * place)
        return found.view(np.int32)

    tensors = {"qweight": words(codes.T), "qzeros": words(zeros.T), "scales": scales.T}
    return _torch(tensors), dense(codes, scales, zeros, order)


def fp8_block(weight: Tensor, block: tuple[int, int]) -> Packed:
    """DeepSeek's tensors: blocks at the edges are smaller."""
    rows, columns = weight.shape
    height, width = block
    shape = (-(-rows // height), -(-columns // width))
    scale = torch.empty(shape, dtype=torch.float32)
    codes = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
    meant = torch.empty_like(weight)
    for i in range(shape[0]):
        for j in range(shape[1]):
            here = slice(i * height, (i + 1) * height), slice(j * width, (j + 1) * width)
            scale[i, j] = weight[here].abs().max() / 448
            codes[here] = (weight[here] / scale[i, j]).to(torch.float8_e4m3fn)
            meant[here] = codes[here].float() * scale[i, j]
    return {"weight": codes, "weight_scale_inv": scale}, meant


def fp8_tensor(weight: Tensor) -> Packed:
    """One scale for all, as vLLM's serialized FP8 and ModelOpt's have it."""
    scale = weight.abs().max() / 448
    codes = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": codes, "weight_scale": scale}, codes.float() * scale


def nvfp4(weight: Tensor, outer: float | None = None, inputs: float | None = None) -> Packed:
    """ModelOpt's tensors; `outer` is weight_scale_2 where partners share it."""
    rows, columns = weight.shape
    factor = torch.tensor(outer if outer else float(weight.abs().max()) / (6 * 448))
    parts = weight.reshape(rows, columns // 16, 16)
    scale = (parts.abs().amax(2) / 6 / factor).clamp(min=2.0**-9).to(torch.float8_e4m3fn)
    step = (scale.float() * factor).unsqueeze(2).numpy()
    scaled = parts.numpy() / step
    index = np.abs(np.abs(scaled)[..., None] - E2M1).argmin(-1)
    codes = (index | np.where(np.signbit(scaled), 8, 0)).astype(np.uint8).reshape(rows, columns)
    meant = (E2M1[index] * np.where(np.signbit(scaled), -1, 1) * step).reshape(rows, columns)
    tensors = {
        "weight": torch.from_numpy(codes[:, 0::2] | codes[:, 1::2] << 4),
        "weight_scale": scale,
        "weight_scale_2": factor,
    }
    if inputs:
        tensors["input_scale"] = torch.tensor(inputs)
    return tensors, torch.from_numpy(meant.astype(np.float32))


def _torch(tensors: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in tensors.items()}
