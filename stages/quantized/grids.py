"""Grids of the 4- and 8-bit floats that several writers store alike: MX and NVFP4."""

from __future__ import annotations

from stages.schemes.quant_args import QArgs

MXFP4 = QArgs(num_bits=4, type="float", strategy="group", group_size=32, scale_dtype="uint8")
MXFP8 = QArgs(num_bits=8, type="float", strategy="group", group_size=32, scale_dtype="uint8")
NVFP4 = QArgs(
    num_bits=4,
    type="float",
    strategy="tensor_group",
    group_size=16,
    scale_dtype="float8_e4m3fn",
)
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Magnitudes of FP4 by code."""
