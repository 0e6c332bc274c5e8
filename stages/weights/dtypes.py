"""Convert between safetensors' dtype names and torch dtypes."""

from __future__ import annotations

import torch

_BY_NAME = {
    "BOOL": torch.bool,
    "F4": torch.float4_e2m1fn_x2,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "C64": torch.complex64,
}
_BY_DTYPE = {dtype: name for name, dtype in _BY_NAME.items()}


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a safetensors dtype name; KeyError for an unknown name."""
    return _BY_NAME[name]


def dtype_name(dtype: torch.dtype) -> str:
    """The safetensors name of a torch dtype; KeyError for a dtype that it cannot store."""
    return _BY_DTYPE[dtype]
