"""Pack FP4 (E2M1) codes two in a byte (OCP MX specification, section 5.3.3).

compressed-tensors defines the bytes, and tests compare with it. Its own packing searches the whole
weight for each of the eight magnitudes, twice.
"""

from __future__ import annotations

from torch import Tensor

FORMATS = ("nvfp4-pack-quantized", "mxfp4-pack-quantized")


def bytes_of_codes(codes: Tensor) -> Tensor:
    """uint8 [out, in / 2] of codes 0 to 15, uint8 [out, in]: even columns in the low bits.

    Raises ValueError for an odd number of columns.
    """
    if codes.shape[-1] % 2:
        raise ValueError(f"{codes.shape[-1]} columns of FP4 codes do not fill whole bytes")
    return codes[:, ::2] | (codes[:, 1::2] << 4)
