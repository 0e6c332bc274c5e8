"""Tensors of one safetensors file in memory: on the GPU, in pinned host memory, or unpinned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from pipeline.content import Memory
from pipeline.stage import Artifact
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.source import TensorSpec, WeightSource
from stages.weights.writer import spec_of, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

HOST = "cpu"


@dataclass(frozen=True, slots=True)
class TensorContent:
    """The content of a safetensors file (`pipeline.content.Content`); all tensors on one device."""

    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Take over `tensors`, which nobody else may change from now on.

        One that is a view is copied: it would keep all of the memory that it is a part of.
        """
        return cls({name: _whole(tensor) for name, tensor in tensors.items()})

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def memories(self) -> tuple[Memory, ...]:
        """The device that the tensors are on, then the host."""
        host = Memory(name=HOST, capacity=psutil.virtual_memory().total)
        device = next((str(tensor.device) for tensor in self.tensors.values()), HOST)
        return (host,) if device == HOST else (Memory(name=device, capacity=_total(device)), host)

    def moved(self, memory: str) -> Self:
        """In another memory; from a GPU to the host it is pinned, which makes copies fast."""
        if memory == self.memories[0].name:
            return self
        return type(self)({name: _pinned(tensor) for name, tensor in self.tensors.items()})

    def read(self, names: Iterable[str], *, device: str = HOST) -> dict[str, Tensor]:
        """Copies of the named tensors on `device`."""
        return {name: self.tensors[name].to(device, copy=True) for name in names}

    def specs(self) -> Mapping[str, TensorSpec]:
        """Names, shapes and dtypes as they are in the file."""
        return {name: spec_of(name, tensor) for name, tensor in self.tensors.items()}

    def write(self, path: Path) -> None:
        from safetensors.torch import save_file

        save_file({name: tensor.cpu() for name, tensor in self.tensors.items()}, path)


class ShardContent(TensorContent):
    """The same of a file that becomes a shard of a checkpoint: it says that torch can read it."""

    def write(self, path: Path) -> None:
        write_tensors(path, self.tensors)


def reader(artifact: Artifact, name: str) -> WeightSource:
    """The tensors of a safetensors file of a result, wherever that is."""
    content = artifact.content(name)
    if isinstance(content, TensorContent):
        return content
    return SafetensorsSource.of_file(artifact.file(name))


def _whole(tensor: Tensor) -> Tensor:
    alone = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor.detach() if alone else tensor.detach().contiguous().clone()


def _total(device: str) -> int:
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory)


def _pinned(tensor: Tensor) -> Tensor:
    import torch

    try:
        place = torch.empty_like(tensor, device=HOST, pin_memory=True)
    except RuntimeError:  # the system lets this process pin no more
        return tensor.cpu()
    return place.copy_(tensor)
