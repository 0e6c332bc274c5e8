"""The tensors of one compressed module as a checkpoint holds them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from stages.formats.plain import MAIN
from stages.weights import TensorSpec, WeightSource

PARTS = (
    "weight",
    "weight_packed",
    "weight_scale",
    "weight_zero_point",
    "weight_global_scale",
    "weight_shape",
    "weight_g_idx",
)
INPUT_PARTS = ("input_scale", "input_zero_point", "input_global_scale")


def stored_parts(
    source: WeightSource,
    there: Mapping[str, TensorSpec],
    prefix: str,
    *,
    device: str = "cpu",
    but: str | None = None,
) -> dict[str, Tensor]:
    """The tensors of one compressed module as they are stored, by local name, without bias.

    `there` are the tensors of `source`; the one whose name is `but` is left out.
    """
    wanted = [f"{prefix}.{part}" for part in (*PARTS, *INPUT_PARTS)]
    tensors = source.read([w for w in wanted if w in there and w != but], device=device)
    return {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}


def main_part(there: Mapping[str, TensorSpec], prefix: str) -> str | None:
    """The tensor with a module's codes: the one of two dimensions that is called so."""
    names = (f"{prefix}.{part}" for part in MAIN)
    found = next((name for name in names if name in there), None)
    return found if found is not None and len(there[found].shape) == 2 else None
