"""How transformers is asked to load a scheme, by its version."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from packaging.version import Version
from transformers import CompressedTensorsConfig

ZERO_POINTS = ("w4a16_asym",)
"""Schemes that pack zero points."""
SINCE = "5.23"
"""The first version of transformers that loads packed zero points only as dense weights."""
NEEDS_DENSE = Version(version("transformers")) >= Version(SINCE)
"""Whether packed zero points load only where all weights are dequantized on the way."""


def unread(scheme: str) -> list[str]:
    """Checks of verification that stay open where transformers does not load a shipped scheme."""
    return ["loading in transformers"] if scheme in ZERO_POINTS and NEEDS_DENSE else []


def loading_options(scheme: str) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a checkpoint in a shipped scheme."""
    if scheme in ZERO_POINTS and NEEDS_DENSE:
        return {"quantization_config": CompressedTensorsConfig(dequantize=True)}
    return {}
