"""Tensor specs and the protocol of weight sources, which read tensors by checkpoint name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod
from typing import TYPE_CHECKING, Protocol

from pipeline.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

BITS = {
    "BOOL": 8, "F4": 4, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32,
    "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one element by safetensors dtype name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """Name, shape and dtype of a stored tensor; `dtype` as in safetensors: "BF16", "F8_E4M3"."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Bytes that `WeightSource.read` needs for it."""
        return prod(self.shape) * BITS[self.dtype] // 8


class WeightSource(Protocol):
    """Tensors on disk by checkpoint name; keeps no file open and no memory mapped."""

    def specs(self) -> Mapping[str, TensorSpec]:
        """All tensors by name, from headers alone; UserError for a broken file."""
        ...

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        """Copies of the named tensors, with the shapes and dtypes of `specs`.

        Raises UserError for an unknown name and for a truncated file.
        """
        ...


def no_such_tensor(name: str, names: Iterable[str], where: str) -> UserError:
    """The error for a tensor that `where` lacks, with the closest names in `names`."""
    close = get_close_matches(name, list(names), n=3)
    return UserError(
        f"there is no tensor {name!r} in {where}",
        remedy=f"close names there: {', '.join(close)}" if close else "",
    )
