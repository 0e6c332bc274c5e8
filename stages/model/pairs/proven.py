"""Proven smoothing pairs as data: patterns of module names, by kind of decoder layer.

Neither torch nor transformers is imported here, so that a plan stays quick.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.stage import Artifact
from stages.model.blueprint import Blueprint, Pair, Subgraph

FILE = "pairs.json"
PAIRS = "pairs"
"""The input under which a stage takes the result of node `pairs`."""
STAR = "*"
"""The number of any expert, in a pattern."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairPattern:
    """A smoothing pair of one kind of layer; names are relative to the layer, experts are `*`.

    `source_kind`, `norm_offset`: see `Pair`. `grouped`: "" where channels are handed on one to one,
    "heads" where the targets read each head of the source (several times, it may be), "all" where
    they read all of its channels several times.
    """

    source: str
    targets: tuple[str, ...]
    source_kind: str = "norm"
    norm_offset: float = 0.0
    grouped: str = ""

    def pairs(self, layer: Subgraph, head_dim: int) -> Iterator[Pair]:
        """The pairs of a layer of a real model that the pattern stands for.

        `head_dim` is the width of the layer's attention heads. A pair whose channels do not meet as
        those of the proof did is left out.
        """
        names = [name.removeprefix(f"{layer.name}.") for name in _modules(layer)]
        for source, expert in _matching(names, self.source):
            own = [t.replace(STAR, expert) if expert else t for t in self.targets]
            found = [[name for name in names if _match(target, name)] for target in own]
            targets = [name for name in names if any(name in some for some in found)]
            pair = self._pair(layer, source, targets, head_dim) if all(found) else None
            if pair is not None:
                yield pair

    def _pair(
        self, layer: Subgraph, source: str, targets: Sequence[str], head_dim: int
    ) -> Pair | None:
        channels = layer.shapes[f"{layer.name}.{source}.weight"][0]
        inputs = {layer.shapes[f"{layer.name}.{target}.weight"][-1] for target in targets}
        width = {"heads": head_dim, "all": channels}.get(self.grouped, 0)
        if len(inputs) != 1:
            return None
        repeats, rest = divmod(inputs.pop(), channels)
        if rest or (repeats != 1 and (not width or channels % width)):
            return None
        return Pair(
            source=f"{layer.name}.{source}",
            targets=tuple(f"{layer.name}.{target}" for target in targets),
            source_kind=self.source_kind,
            norm_offset=self.norm_offset,
            repeats=repeats,
            head_dim=width,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class KindOfLayer:
    """Decoder layers of one kind, by name, the width of their heads, and their pairs."""

    layers: tuple[str, ...]
    head_dim: int
    patterns: tuple[PairPattern, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProvenPairs:
    """All pairs that were proven for a model, and why others that came near were refused."""

    kinds: tuple[KindOfLayer, ...]
    refused: tuple[str, ...] = ()

    def of(self, layer: Subgraph) -> tuple[Pair, ...]:
        """The proven pairs of one decoder layer: those of norms first, in the module tree's order.

        A norm comes before the Linears that read it: what its pair rewrites is read by theirs.
        """
        return tuple(
            pair
            for kind in self.kinds
            if layer.name in kind.layers
            for pattern in kind.patterns
            for pair in pattern.pairs(layer, kind.head_dim)
        )

    def attached(self, blueprint: Blueprint) -> Blueprint:
        """The blueprint whose layers list their proven pairs."""
        users = users_of(blueprint.layers)
        layers = (
            replace(layer, pairs=tuple(p for p in self.of(layer) if movable(p, layer, users)))
            for layer in blueprint.layers
        )
        return replace(blueprint, layers=tuple(layers))

    def to_json(self) -> dict[str, Any]:
        """The pairs as JSON data; the inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ProvenPairs:
        """The pairs in the output of `to_json`."""
        return cls(
            kinds=tuple(_kind(kind) for kind in data["kinds"]), refused=tuple(data["refused"])
        )

    @classmethod
    def load(cls, artifact: Artifact) -> ProvenPairs:
        """The pairs in the result of node `pairs`."""
        return cls.from_json(artifact.json(FILE))


def users_of(layers: Iterable[Subgraph]) -> dict[str, set[str]]:
    """Tensor on disk -> the decoder layers that use it."""
    users: dict[str, set[str]] = {}
    for layer in layers:
        for stored in layer.tensors.values():
            users.setdefault(stored, set()).add(layer.name)
    return users


def movable(pair: Pair, layer: Subgraph, users: Mapping[str, set[str]]) -> bool:
    """Whether both sides of a pair serve the same layers, and are this one's to change."""
    weights = [f"{name}.weight" for name in (pair.source, *pair.targets)]
    found = [users[layer.tensors[name]] for name in weights]
    return all(one == found[0] for one in found) and not set(weights).intersection(layer.shared)


def pattern_from_json(data: Mapping[str, Any]) -> PairPattern:
    """The pattern in the output of `asdict`."""
    return PairPattern(**{**data, "targets": tuple(data["targets"])})


def modules_matching(layer: Subgraph, pattern: str) -> list[str]:
    """The modules with a weight in a decoder layer for which a pattern stands, by full name."""
    start = f"{layer.name}."
    return [name for name in _modules(layer) if _match(pattern, name.removeprefix(start))]


def _kind(data: Mapping[str, Any]) -> KindOfLayer:
    return KindOfLayer(
        layers=tuple(data["layers"]),
        head_dim=data["head_dim"],
        patterns=tuple(map(pattern_from_json, data["patterns"])),
    )


def _modules(layer: Subgraph) -> Iterable[str]:
    """Modules with a weight, in the order of the module tree."""
    return (name.removesuffix(".weight") for name in layer.tensors if name.endswith(".weight"))


def _matching(names: Iterable[str], pattern: str) -> Iterator[tuple[str, str]]:
    """The names that match, each with the number in place of the star ("" without one)."""
    for name in names:
        if found := _match(pattern, name):
            yield name, "".join(found.groups()[:1])


def _match(pattern: str, name: str) -> re.Match[str] | None:
    return re.fullmatch(re.escape(pattern).replace(re.escape(STAR), r"(\d+)"), name)
