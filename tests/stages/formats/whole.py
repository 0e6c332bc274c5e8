"""Stored tensors of one module that are all in memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stages.formats import checksums as stored
from stages.schemes.protocols import ModuleFormat
from stages.weights.row_bands import InMemory


def apart(tensors: Mapping[str, Tensor]) -> tuple[InMemory, dict[str, Tensor]]:
    """The tensor with the codes, and the others."""
    main = "weight_packed" if "weight_packed" in tensors else "weight"
    return InMemory(tensors[main]), {name: t for name, t in tensors.items() if name != main}


def stored_sums(
    tensors: Mapping[str, Tensor], scheme: ModuleFormat, dtype: torch.dtype
) -> dict[str, Tensor] | None:
    """`stages.formats.checksums.stored_sums` of them."""
    return stored.stored_sums(*apart(tensors), scheme, dtype)
