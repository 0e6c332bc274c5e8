"""Pack FP6 (E2M3) numbers four in three bytes (OCP MX specification, section 5.3.2).

compressed-tensors (from 0.20 on) defines the bytes, and tests compare with it. A code has its sign
in bit 5 and the magnitude below, in steps of 1/8 up to 2, of 1/4 up to 4 and of 1/2 up to 7.5; four
codes fill 24 bits, the first one in the lowest.
"""

from __future__ import annotations

import torch
from torch import Tensor

FORMAT = "mxfp6-pack-quantized"
SHIFTS = (0, 6, 12, 18)


def bytes_of_values(values: Tensor) -> Tensor:
    """uint8 [out, 3 * in / 4] of E2M3 numbers [out, in] of a float dtype; -0 keeps its sign.

    Raises ValueError for columns that do not fill whole bytes.
    """
    rows, columns = values.shape
    if columns % 4:
        raise ValueError(f"{columns} columns of FP6 codes do not fill whole bytes")
    given = values.float()
    eighths = given.abs().mul(8).to(torch.int32)  # 0 to 16, by 2 to 32, by 4 to 60
    magnitude = torch.where(eighths < 16, eighths, (eighths >> 1) + 8)
    magnitude = torch.where(eighths < 32, magnitude, (eighths >> 2) + 16)
    codes = (magnitude | torch.signbit(given).to(torch.int32) << 5).view(rows, columns // 4, 4)
    word = codes[..., 0]
    for index, shift in enumerate(SHIFTS[1:], start=1):
        word = word | codes[..., index] << shift
    parts = [(word >> shift & 0xFF).to(torch.uint8) for shift in (0, 8, 16)]
    return torch.stack(parts, dim=-1).view(rows, 3 * columns // 4)


def values_of_bytes(packed: Tensor) -> Tensor:
    """float32 [out, in]: the E2M3 numbers of packed bytes, uint8 [out, 3 * in / 4]."""
    rows, width = packed.shape
    parts = packed.to(torch.int32).view(rows, width // 3, 3)
    word = parts[..., 0] | parts[..., 1] << 8 | parts[..., 2] << 16
    codes = torch.stack([word >> shift & 0x3F for shift in SHIFTS], dim=-1).view(rows, -1)
    magnitude = codes & 0x1F
    size = (magnitude & 7).float() / 8
    binade = magnitude >> 3
    whole = torch.where(binade == 0, size, torch.ldexp(1 + size, binade - 1))
    return torch.where(codes & 0x20 != 0, -whole, whole)
