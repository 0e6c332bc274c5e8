"""The tensors of one compressed module as a checkpoint holds them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from stages.weights import TensorSpec, WeightSource
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.scratch import Scratch

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
    scratch: Scratch | None = None,
) -> dict[str, Tensor]:
    """The tensors of one compressed module as they are stored, by local name, without bias.

    `there` are the tensors of `source`. Given `scratch`, the largest may lie there and is good
    until something else does.
    """
    wanted = [f"{prefix}.{part}" for part in (*PARTS, *INPUT_PARTS)]
    names = [name for name in wanted if name in there]
    lent = {}
    if names and scratch is not None and isinstance(source, SafetensorsSource):
        largest = max(names, key=lambda name: there[name].bytes)
        names.remove(largest)
        lent[largest] = source.borrow(largest, scratch)
    tensors = source.read(names, device=device) | lent
    return {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}
