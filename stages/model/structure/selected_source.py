"""Weight source with a selection of another's tensors: some renamed, some cut along an axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from stages.weights.cut_source import read_block
from stages.weights.source import TensorSpec, WeightSource, no_such_tensor
from stages.weights.writer import bytes_of, pieces

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """Parts of a tensor: axis `axis` has `of` parts of equal length, of which `kept` stay."""

    axis: int
    of: int
    kept: tuple[int, ...]

    def shape(self, whole: Sequence[int]) -> tuple[int, ...]:
        """The shape that is left of `whole`."""
        length = whole[self.axis] // self.of * len(self.kept)
        return (*whole[: self.axis], length, *whole[self.axis + 1 :])

    def of_tensor(self, whole: Tensor) -> Tensor:
        """What is left of a tensor, as one of its own."""
        import torch

        parts = whole.unflatten(self.axis, (self.of, whole.shape[self.axis] // self.of))
        numbers = torch.tensor(self.kept, device=whole.device)
        left: Tensor = parts.index_select(self.axis, numbers)
        return left.flatten(self.axis, self.axis + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """`renamed`: name -> the tensor that it is; `taken`: tensors of which parts stay; `dropped`."""

    renamed: Mapping[str, str] = field(default_factory=dict)
    taken: Mapping[str, Taken] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()

    @staticmethod
    def all(parts: Iterable[Selection]) -> Selection:
        """Several selections, of different tensors, as one."""
        renamed: dict[str, str] = {}
        taken: dict[str, Taken] = {}
        dropped: list[str] = []
        for part in parts:
            renamed.update(part.renamed)
            taken.update(part.taken)
            dropped.extend(part.dropped)
        return Selection(renamed=renamed, taken=taken, dropped=tuple(dropped))

    def specs(self, whole: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
        """What is there of the tensors `whole`."""
        gone = frozenset(self.dropped)
        found = {name: spec for name, spec in whole.items() if name not in gone}
        for name, stored in self.renamed.items():
            found[name] = replace(whole[stored], name=name)
        for name, taken in self.taken.items():
            found[name] = replace(whole[name], shape=taken.shape(whole[name].shape))
        return found

    def to_json(self) -> dict[str, Any]:
        """Its fields as JSON data."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Selection:
        """The selection in the output of `to_json`."""
        taken = {n: Taken(**{**t, "kept": tuple(t["kept"])}) for n, t in data["taken"].items()}
        return Selection(renamed=dict(data["renamed"]), taken=taken, dropped=tuple(data["dropped"]))


class SelectedSource:
    """A `WeightSource` over `source` with what a selection leaves of it."""

    def __init__(self, source: WeightSource, selection: Selection) -> None:
        self.source = source
        self.selection = selection

    def specs(self) -> Mapping[str, TensorSpec]:
        return self.selection.specs(self.source.specs())

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        stored = {name: self._stored(name) for name in names}
        tensors = self.source.read(dict.fromkeys(stored.values()), device=device)
        found = {}
        for name, original in stored.items():
            taken = self.selection.taken.get(name)
            tensor = tensors[original]
            found[name] = tensor if taken is None else taken.of_tensor(tensor)
        return found

    def read_block(self, name: str, index: int) -> Tensor:
        """Entry `index` of a tensor's first dimension."""
        taken = self.selection.taken.get(name)
        if taken is None or taken.axis != 0 or self.source.specs()[name].shape[0] != taken.of:
            return self.read([name])[name][index]
        return read_block(self.source, name, taken.kept[index])

    def pieces(self, name: str) -> Iterator[memoryview]:
        """The bytes of a tensor in order; each piece is valid until the next one is requested."""
        if name in self.selection.taken:
            yield bytes_of(self.read([name])[name])
        else:
            yield from pieces(self.source, self._stored(name))

    def _stored(self, name: str) -> str:
        stored = self.selection.renamed.get(name)
        if stored is None and name in self.selection.dropped:
            raise no_such_tensor(name, (), "the model with fewer experts")
        return name if stored is None else stored
