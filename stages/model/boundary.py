"""Boundary of two decoder layers: everything that a layer hands on, as named tensors.

A layer hands on what it returns, which may be a tensor or tuples of tensors of any shapes, and what
it writes into containers that later layers are given as well (keys and values that they share). A
model whose later layers read the token embeddings has these in every boundary too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import StageFailed
from stages.model.artifact_names import HIDDEN

EMBEDDING = "embedding"
STRUCTURE = "structure"
"""The tensor uint8 [n] of JSON that says how the others belong together."""
PLAIN: dict[str, Any] = {"tensor": HIDDEN}
Written = tuple[str, str | int, Any]
"""A container (number or name of the argument), the key in it, and the structure of the value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Boundary:
    """What one decoder layer hands on for a batch of tokens.

    `tensors`: by name, the hidden state first (`hidden`). `returned` is the structure of what the
    layer returns, with names in place of tensors. `exact` names tensors whose dtype is not the
    model's and must stay.
    """

    tensors: Mapping[str, Tensor]
    returned: Any = None
    written: tuple[Written, ...] = ()
    exact: tuple[str, ...] = ()

    @classmethod
    def plain(cls, hidden: Tensor) -> Boundary:
        """The boundary of a layer that returns a hidden state and nothing else."""
        return cls(tensors={HIDDEN: hidden}, returned=PLAIN)

    @classmethod
    def of(
        cls,
        returned: object,
        written: Mapping[tuple[str, str | int], object],
        embedding: Tensor | None,
        dtype: torch.dtype,
    ) -> Boundary:
        """What a layer of a model of `dtype` returned, and wrote by container and key.

        Raises StageFailed for a value that is no tensor, tuple, list, dict or plain value.
        """
        tensors: dict[str, Tensor] = {}
        structure = _taken(returned, tensors)
        if HIDDEN not in tensors:
            raise StageFailed(
                f"a decoder layer returns a {type(returned).__name__} without a tensor",
                remedy="report the architecture with its config.json",
            )
        kept = tuple((*place, _taken(value, tensors)) for place, value in written.items())
        if embedding is not None:
            tensors[EMBEDDING] = embedding
        floats = (name for name, tensor in tensors.items() if tensor.is_floating_point())
        exact = tuple(name for name in floats if tensors[name].dtype != dtype)
        return cls(tensors=tensors, returned=structure, written=kept, exact=exact)

    @property
    def hidden(self) -> Tensor:
        """The hidden state: the first tensor that the layer returned, [b, T, hidden] mostly."""
        return self.tensors[HIDDEN]

    @property
    def embedding(self) -> Tensor | None:
        """The token embeddings [b, T, width], where a later layer reads them."""
        return self.tensors.get(EMBEDDING)

    def value(self) -> Any:
        """What the layer returned."""
        return _filled(self.returned, self.tensors)

    def entries(self) -> Iterator[tuple[str, str | int, Any]]:
        """What this and earlier layers wrote: container, key and value."""
        for place, key, structure in self.written:
            yield place, key, _filled(structure, self.tensors)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Boundary:
        """The same boundary with other tensors."""
        tensors = {name: change(tensor) for name, tensor in self.tensors.items()}
        return Boundary(
            tensors=tensors, returned=self.returned, written=self.written, exact=self.exact
        )

    def returned_names(self) -> tuple[str, ...]:
        """Names of the tensors that the layer returned, in order."""
        return tuple(_names(self.returned))

    def written_names(self) -> frozenset[str]:
        """Names of the tensors that this and earlier layers wrote into containers."""
        return frozenset(name for *_, structure in self.written for name in _names(structure))

    def without(self, names: Container[str]) -> Boundary:
        """The same boundary with None in place of some tensors, which nothing reads."""
        return Boundary(
            tensors={name: t for name, t in self.tensors.items() if name not in names},
            returned=_emptied(self.returned, names),
            written=self.written,
            exact=tuple(name for name in self.exact if name not in names),
        )

    def on(self, device: torch.device, dtype: torch.dtype) -> Boundary:
        """On a device, in the dtype of a model there."""
        tensors = {
            name: tensor.to(device, dtype)
            if tensor.is_floating_point() and name not in self.exact
            else tensor.to(device)
            for name, tensor in self.tensors.items()
        }
        return Boundary(
            tensors=tensors, returned=self.returned, written=self.written, exact=self.exact
        )

    def row(self, index: int, ids: Tensor) -> Boundary:
        """The part of sequence `index` of a batch with token ids [b, T]."""
        kept = self.written_names()
        tensors = {
            name: _row(tensor, index, ids.shape, kept=name in kept)
            for name, tensor in self.tensors.items()
        }
        return Boundary(
            tensors=tensors, returned=self.returned, written=self.written, exact=self.exact
        )

    def stored(self) -> dict[str, Tensor]:
        """All tensors by name, with the structure among them where it is not plain."""
        if set(self.tensors) == {HIDDEN} and self.returned == PLAIN and not self.exact:
            return dict(self.tensors)
        structure = {"returned": self.returned, "written": self.written, "exact": self.exact}
        told = torch.frombuffer(bytearray(json.dumps(structure).encode()), dtype=torch.uint8)
        return {**self.tensors, STRUCTURE: told.to(self.hidden.device)}

    @classmethod
    def from_stored(cls, tensors: Mapping[str, Tensor]) -> Boundary:
        """The inverse of `stored`."""
        if STRUCTURE not in tensors:
            return cls.plain(tensors[HIDDEN])
        data = json.loads(bytes(tensors[STRUCTURE].cpu().tolist()))
        return cls(
            tensors={name: tensor for name, tensor in tensors.items() if name != STRUCTURE},
            returned=data["returned"],
            written=tuple((place, key, value) for place, key, value in data["written"]),
            exact=tuple(data["exact"]),
        )


def joined(rows: Sequence[Boundary], ids: Tensor) -> Boundary:
    """The boundary of a batch with ids [b, T] from those of its sequences; inverse of `row`."""
    one = torch.Size((1, ids.shape[1]))
    first = rows[0]
    kept = first.written_names()
    tensors = {}
    for name, tensor in first.tensors.items():
        flat = tensor.dim() > 0 and tensor.shape[0] == ids.shape[1] != 1
        dim = 0 if flat else batch_dim(tensor.shape, one, kept=name in kept)
        parts = [row.tensors[name] for row in rows]
        tensors[name] = tensor if dim is None else torch.cat(parts, dim=dim)
    return Boundary(
        tensors=tensors, returned=first.returned, written=first.written, exact=first.exact
    )


def batch_dim(shape: torch.Size, ids: torch.Size, *, kept: bool = False) -> int | None:
    """The dimension of sequences in a tensor made from token ids [b, T]; None if it has none.

    It is the one before the tokens; where no such pair is, the first of size b. What layers write
    into containers (`kept`: keys and values [b, heads, T, width]) has it first: there may be as
    many heads as sequences.
    """
    sizes = list(shape)
    if kept and sizes[:1] == [ids[0]]:
        return 0
    pairs = [d for d in range(len(sizes) - 1) if sizes[d : d + 2] == list(ids)]
    if pairs:
        return pairs[0]
    return sizes.index(ids[0]) if ids[0] in sizes else None


def _row(tensor: Tensor, index: int, ids: torch.Size, *, kept: bool) -> Tensor:
    if tensor.dim() and tensor.shape[0] == ids[0] * ids[1] != ids[0]:  # tokens in one dimension
        return tensor[index * ids[1] : (index + 1) * ids[1]]
    dim = batch_dim(tensor.shape, ids, kept=kept)
    return tensor if dim is None else tensor.narrow(dim, index, 1)


def _taken(value: object, tensors: dict[str, Tensor]) -> Any:
    """The structure of a value, whose tensors are put among `tensors`."""
    if isinstance(value, Tensor):
        name = HIDDEN if HIDDEN not in tensors else f"{HIDDEN}.{len(tensors)}"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return {type(value).__name__: [_taken(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise StageFailed(
        f"a decoder layer hands on a {type(value).__name__}, which cannot be kept",
        remedy="report the architecture with its config.json",
    )


def _names(structure: Any) -> Iterator[str]:
    if "tensor" in structure:
        yield structure["tensor"]
    for items in (structure.get("tuple", ()), structure.get("list", ())):
        for item in items:
            yield from _names(item)


def _emptied(structure: Any, names: Container[str]) -> Any:
    if structure.get("tensor") in names:
        return {"value": None}
    return {
        kind: [_emptied(item, names) for item in items] if kind in ("tuple", "list") else items
        for kind, items in structure.items()
    }


def _filled(structure: Any, tensors: Mapping[str, Tensor]) -> Any:
    if "tensor" in structure:
        return tensors[structure["tensor"]]
    if "value" in structure:
        return structure["value"]
    ((kind, items),) = structure.items()
    values = [_filled(item, tensors) for item in items]
    return tuple(values) if kind == "tuple" else values
