"""How transformers is asked to load a scheme, by its version."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor
from transformers import CompressedTensorsConfig

ZERO_POINTS = ("w4a16_asym",)
"""Schemes that pack zero points."""
SINCE = "5.23"
"""The first version of transformers that loads packed zero points only as dense weights."""
NEEDS_DENSE = Version(version("transformers")) >= Version(SINCE)
"""Whether packed zero points load only where all weights are dequantized on the way."""

DECODES_IN_HALF = Version(version("transformers")) >= Version(SINCE)
"""Whether weights with float16 scales are decoded in 16 bits, whatever dtype is asked for."""


def loaded_as(loaded: Tensor, meant: Tensor) -> bool:
    """Whether weights with float16 scales, loaded as float32, are the float32 numbers `meant`.

    5.17 multiplies in float32. 5.24 does so in 16 bits first, in float16 or bfloat16 as the rest of
    the checkpoint is.
    """
    if torch.equal(loaded, meant):
        return True
    halves = (torch.float16, torch.bfloat16) if DECODES_IN_HALF else ()
    return any(torch.equal(loaded, meant.to(dtype).float()) for dtype in halves)


def unread(scheme: str) -> list[str]:
    """Checks of verification that stay open where transformers does not load a shipped scheme."""
    return ["loading in transformers"] if scheme in ZERO_POINTS and NEEDS_DENSE else []


def loading_options(scheme: str) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a checkpoint in a shipped scheme."""
    if scheme in ZERO_POINTS and NEEDS_DENSE:
        return {"quantization_config": CompressedTensorsConfig(dequantize=True)}
    return {}
