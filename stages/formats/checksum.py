"""What is summed of a weight that was chosen: its bits as readers will have them."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.formats.plain import LAYOUTS
from stages.formats.protocols import ModuleFormat
from stages.formats.sums import bit_sums

MISFITS = (
    *(KeyError, IndexError, AttributeError),  # tensors that are missing, or of too few dimensions
    *(TypeError, ValueError, RuntimeError, AssertionError),  # shapes and dtypes that do not fit
)
"""What unpacking raises for tensors that are not what their format says."""


def checksum(weight: Tensor, scheme: ModuleFormat, dtype: torch.dtype) -> dict[str, Tensor]:
    """`bit_sums` of a chosen weight [out, in] as it will be unpacked: in the readers' dtype."""
    return bit_sums(weight.to(unpacked_dtype(scheme, dtype)))


def unpacked_dtype(scheme: ModuleFormat, dtype: torch.dtype) -> torch.dtype:
    """What compressed-tensors unpacks to for a model of `dtype`: FP4 and MX always to bfloat16."""
    return dtype if str(scheme.format) in LAYOUTS else torch.bfloat16
