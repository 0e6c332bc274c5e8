"""Write a safetensors file whose tensors arrive in any order, each straight to its position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from stages.weights.source import TensorSpec
from stages.weights.writer import bytes_of, layout, spec_of, write_at

if TYPE_CHECKING:
    from torch import Tensor


class MisfitError(Exception):
    """A tensor that differs from its announced spec, or was announced and never set."""


class PlacedFile:
    """A sink for tensors by name that keeps none: their bytes go straight to the file.

    The file equals what `write_tensors` writes for the same tensors. The memory of a tensor may be
    reused as soon as it was put. A large one may be written in rows; it is then put without memory
    (on the device "meta"). Leaving the context without an exception raises MisfitError if an
    announced tensor is missing; the file is incomplete then.
    """

    def __init__(self, path: Path, specs: Iterable[TensorSpec]) -> None:
        self._specs = {spec.name: spec for spec in specs}
        first, self._starts = layout(self._specs.values())
        self._written: set[str] = set()
        self._rows: Counter[str] = Counter()
        self._file = open(path, "wb", buffering=0)
        write_at(self._file.fileno(), 0, [memoryview(first)])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        missing = self._specs.keys() - self._written
        if missing and error is None:
            raise MisfitError(f"{min(missing)} was announced and never came")

    def put_rows(self, name: str, first: int, rows: Tensor) -> None:
        """Write some rows of a tensor, which is to be put once all of them are written."""
        spec, given = self._specs.get(name), spec_of(name, rows)
        if spec is None or (spec.shape[1:], spec.dtype) != (given.shape[1:], given.dtype):
            raise MisfitError(f"rows of {name} came as {given}")
        start = self._starts[name] + first * (spec.bytes // max(1, spec.shape[0]))
        write_at(self._file.fileno(), start, [bytes_of(rows)])
        self._rows[name] += len(rows)

    def put(self, name: str, tensor: Tensor) -> None:
        """Write a tensor; raises MisfitError unless it is as it was announced."""
        if self._specs.get(name) != spec_of(name, tensor):
            raise MisfitError(f"{name} came as {spec_of(name, tensor)}")
        if not tensor.is_meta:
            write_at(self._file.fileno(), self._starts[name], [bytes_of(tensor)])
        elif self._rows[name] != len(tensor):
            raise MisfitError(f"{self._rows[name]} of {len(tensor)} rows of {name} came")
        self._written.add(name)

    def take_back(self, name: str) -> None:
        """Count a tensor as missing that was put."""
        self._written.remove(name)

    @property
    def names(self) -> list[str]:
        """The tensors that were put."""
        return sorted(self._written)
