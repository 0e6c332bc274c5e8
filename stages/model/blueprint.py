"""Blueprint of a model as plain data: decoder layers, Linears, tensor names and shapes.

It has all that later stages need to know about a model. Neither torch nor transformers is imported
here, so that a plan and a fully cached run stay quick.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import Any

from pipeline.errors import UserError
from pipeline.stage import Artifact
from stages.compute.rotation_steps import RotatedTensors
from stages.model.experts.cut import Cut

FILE = "blueprint.json"
EMBEDDING = "Embedding"
SHARED = "shared"
"""The embedding of encoder-decoders in which both parts, and often the lm_head, have one."""
OUTSIDE = "outside"
STATES = ("q", "k", "v")
"""The states that attention is given: queries, keys and values."""
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearSpec:
    """One nn.Linear of the (patched) module tree, or (kind "Embedding") the token embedding.

    `name` is its name in the module tree, `prefix` its name in the checkpoint (without
    `.weight`), `kind` the name of its class. `expert` marks the Linears of routed experts, `bare`
    those whose weight the model uses without calling them, which stay dense. The `prefix` of a
    tied lm_head is the name that it has once it is untied.
    """

    name: str
    prefix: str
    in_features: int
    out_features: int
    bias: bool = False
    expert: bool = False
    kind: str = "Linear"
    bare: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Modules between which a transform may move a factor per channel (a smoothing pair).

    `source` is a norm or a Linear (`source_kind` "norm" or "linear"), `targets` are Linears whose
    inputs are its outputs. `norm_offset` is 1.0 if the norm multiplies by 1 + weight.
    `repeats` > 1: each group of `head_dim` output channels of the source feeds that many groups
    of input channels of the target (grouped-query attention).
    """

    source: str
    targets: tuple[str, ...]
    source_kind: str = "norm"
    norm_offset: float = 0.0
    repeats: int = 1
    head_dim: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Subgraph:
    """One decoder layer: its Linears, tensors and shapes, smoothing pairs and fused groups.

    `tensors` maps every parameter and persistent buffer (module-tree names, patched) to its name
    in the checkpoint, `shapes` to its shape. `bytes` is their size in the model's dtype.
    `pairs` (none until those that were proven are attached: `stages.model.pairs.proven`) and
    `fused` name modules in the module tree; `fused` lists groups of Linears that
    engines run as one. `shared` names parameters that something else writes into a checkpoint.
    """

    name: str
    index: int
    kind: str
    linears: tuple[LinearSpec, ...]
    tensors: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    parameters: int
    bytes: int
    pairs: tuple[Pair, ...] = ()
    fused: tuple[tuple[str, ...], ...] = ()
    shared: tuple[str, ...] = ()

    def expert_containers(self) -> list[str]:
        """Names of the modules that hold its experts, which go by their numbers."""
        found = (x.name.rpartition(".")[0].rpartition(".")[0] for x in self.linears if x.expert)
        return list(dict.fromkeys(found))


@dataclass(frozen=True, kw_only=True, slots=True)
class Blueprint:
    """A model as plain data: config, decoder layers, and everything outside them.

    `outside` maps parameters that belong to no decoder layer (embedding, final norm, lm_head,
    towers) to checkpoint names; a tied lm_head maps to the embedding's tensor. `carried` names
    checkpoint tensors that no parameter claims (such as extra prediction layers): save copies them
    unchanged. `converted` names the Linears of the module tree that transformers makes of tensors
    of another layout: they stay dense. `decoder`, `embedding` and `head` are the names of the
    module that holds the decoder layers, of the token embedding and of the lm_head. `model_type` is
    the text model's. `patches` maps replaced modules to their original classes. `cuts` maps names
    in `tensors` that the original does not have to the parts of its fused tensors that they stand
    for, `joins` such names to the tensors whose rows they are. `turned` names tensors that the
    original has as [in, out] and that are read as [out, in]. `embedding_bare`: the model reads rows
    of the embedding without calling it, whichever layer runs. `rotation` is what is done to the
    tensors as they are read, where the model is rotated. `outlined` says why the model is
    known by its tensor names only ("" if its class is known): then it cannot be run, and module
    names are those of the checkpoint. `notes` are shown to the user.
    """

    config: Mapping[str, Any]
    architecture: str
    model_type: str
    dtype: str
    experts: str
    tied: bool
    vocab_size: int
    hidden_size: int
    decoder: str
    embedding: str
    head: str
    layers: tuple[Subgraph, ...]
    outside: Mapping[str, str]
    outside_shapes: Mapping[str, tuple[int, ...]]
    outside_linears: tuple[LinearSpec, ...] = ()
    carried: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()
    patches: Mapping[str, str] = field(default_factory=dict)
    cuts: Mapping[str, Cut] = field(default_factory=dict)
    joins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    turned: tuple[str, ...] = ()
    embedding_bare: bool = False
    rotation: RotatedTensors | None = None
    outlined: str = ""
    notes: tuple[str, ...] = ()

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the decoder layers, in order."""
        return tuple(layer.name for layer in self.layers)

    def layer(self, name: str) -> Subgraph:
        """The decoder layer `name`; KeyError if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def shared(self) -> frozenset[str]:
        """Names in the module tree of modules of several layers that are one in the checkpoint."""
        homes: dict[str, list[str]] = {}
        for layer in self.layers:
            for name, stored in layer.tensors.items():
                homes.setdefault(stored, []).append(name.rpartition(".")[0])
        return frozenset(name for names in homes.values() if len(names) > 1 for name in names)

    def linears(self) -> Iterator[LinearSpec]:
        """Every Linear: those of the layers in order, then those outside."""
        for layer in self.layers:
            yield from layer.linears
        yield from self.outside_linears

    def ends(self) -> tuple[LinearSpec, ...]:
        """Modules outside the layers that a scheme may name: token embedding and all Linears."""
        weight = f"{self.embedding}.weight"
        if weight not in self.outside:
            return self.outside_linears
        rows, columns = self.outside_shapes[weight]
        spec = LinearSpec(
            name=self.embedding,
            prefix=self.outside[weight].removesuffix(".weight"),
            in_features=columns,
            out_features=rows,
            kind=EMBEDDING,
        )
        return (spec, *self.outside_linears)

    def outside_part(self, names: Container[str]) -> Subgraph:
        """The modules `names` outside the layers, as if they were one more layer at the end."""
        linears = tuple(end for end in self.ends() if end.name in names)
        modules = {linear.name for linear in linears}
        tensors = {n: t for n, t in self.outside.items() if n.rpartition(".")[0] in modules}
        shapes = {name: self.outside_shapes[name] for name in tensors}
        parameters = sum(prod(shape) for shape in shapes.values())
        return Subgraph(
            name=OUTSIDE,
            index=len(self.layers),
            kind=OUTSIDE,
            linears=linears,
            tensors=tensors,
            shapes=shapes,
            parameters=parameters,
            bytes=parameters * DTYPE_BYTES.get(self.dtype, 4),
        )

    def saved(self, quantized: Container[str]) -> Blueprint:
        """The blueprint of the checkpoint in which the modules `quantized` are compressed.

        It is untied if lm_head and embedding shared a tensor and one of them is quantized: loaders
        do not tie compressed tensors.
        """
        if not self.tied or not (self.head in quantized or self.embedding in quantized):
            return self
        return self.untied()

    def aliases(self) -> dict[str, str]:
        """Tensors that `untied` adds: new name -> name of the same tensor in the original."""
        weight = f"{self.head}.weight"
        return {self.untied().outside[weight]: self.outside[weight]} if self.tied else {}

    def untied(self) -> Blueprint:
        """The same model with an lm_head that has its own tensor."""
        head = next(linear for linear in self.outside_linears if linear.name == self.head)
        weight = {f"{self.head}.weight": f"{head.prefix}.weight"}
        return replace(self, tied=False, outside={**self.outside, **weight})

    def to_json(self) -> dict[str, Any]:
        """The blueprint as JSON data; the inverse of `from_json`."""
        data = asdict(replace(self, cuts={}, rotation=None))
        del data["rotation"]
        rotation = {} if self.rotation is None else {"rotation": self.rotation.to_json()}
        return data | {"cuts": {n: cut.to_json() for n, cut in self.cuts.items()}} | rotation

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Blueprint:
        """The blueprint in the output of `to_json`; UserError if `data` is not one."""
        try:
            values = dict(data)
            values["layers"] = tuple(_subgraph(layer) for layer in data["layers"])
            values["outside_shapes"] = _shapes(data["outside_shapes"])
            values["outside_linears"] = _linears(data["outside_linears"])
            values["carried"] = tuple(data["carried"])
            values["converted"] = tuple(data.get("converted", ()))
            values["notes"] = tuple(data.get("notes", ()))
            values["joins"] = {n: tuple(parts) for n, parts in data.get("joins", {}).items()}
            values["turned"] = tuple(data.get("turned", ()))
            if (rotation := data.get("rotation")) is not None:
                values["rotation"] = RotatedTensors.from_json(rotation)
            values["cuts"] = {n: Cut.from_json(c) for n, c in data.get("cuts", {}).items()}
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{FILE} is not a blueprint of this version: {error}",
                remedy="remove the artifact of node `patch`; it is made again",
            ) from error

    @classmethod
    def load(cls, artifact: Artifact) -> Blueprint:
        """The blueprint in `blueprint.json` of a `patch` or `outline` result."""
        return cls.from_json(artifact.json(FILE))


def _linears(data: Iterable[Mapping[str, Any]]) -> tuple[LinearSpec, ...]:
    return tuple(LinearSpec(**spec) for spec in data)


def _shapes(data: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in data.items()}


def _subgraph(data: Mapping[str, Any]) -> Subgraph:
    values = dict(data)
    values["linears"] = _linears(data["linears"])
    values["shapes"] = _shapes(data["shapes"])
    values["pairs"] = tuple(
        Pair(**{**pair, "targets": tuple(pair["targets"])}) for pair in data["pairs"]
    )
    values["fused"] = tuple(tuple(group) for group in data["fused"])
    values["shared"] = tuple(data.get("shared", ()))
    return Subgraph(**values)
