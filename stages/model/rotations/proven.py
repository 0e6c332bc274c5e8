"""Proven places of rotations as data: patterns of module names, by kind of decoder layer.

Neither torch nor transformers is imported here, so that a plan stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.stage import Artifact
from stages.model.pairs.proven import PairPattern, pattern_from_json

FILE = "rotations.json"


LAST, BY_HEAD = "last", "by head"
"""Where values are among the outputs of a Linear: after all queries and keys, or after those of
each head (of keys and values)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FusedValues:
    """A Linear whose outputs are queries, keys and values, and the one that reads the values.

    `source` and `target` are names relative to the layer; `layout` is LAST or BY_HEAD.
    """

    source: str
    target: str
    layout: str

    def places(self, rows: int, channels: int, head_dim: int) -> tuple[int, int] | None:
        """(period, start): in each run of `period` outputs, those from `start` on are values.

        rows: outputs of the source; channels: inputs of the target, as many as there are queries.
        None where they are no queries, keys and values of heads that are so wide.
        """
        values, odd = divmod(rows - channels, 2)
        if odd or values <= 0 or head_dim <= 0 or values % head_dim or channels % values:
            return None
        if self.layout == LAST:
            return rows, rows - values
        period = rows // (values // head_dim)
        return period, period - head_dim


@dataclass(frozen=True, kw_only=True, slots=True)
class KindOfLayer:
    """Decoder layers of one kind, by name, and who reads and writes the residual stream in them.

    `norms` are pairs of a norm of the residual stream and the modules that read it; `writers` are
    patterns of the Linears whose outputs are added to it. `values` are pairs of two Linears between
    which each head of `head_dim` channels may be rotated, `fused` those of which the first has
    queries and keys among its outputs too.
    """

    layers: tuple[str, ...]
    head_dim: int
    norms: tuple[PairPattern, ...]
    writers: tuple[str, ...]
    values: tuple[PairPattern, ...]
    fused: tuple[FusedValues, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ProvenRotations:
    """Where a model may be rotated, as its shrunken instance has shown in float64.

    `refused`: why R1 or R2 is not possible, by name. `norm` is the name of the norm before the
    lm_head, of which the weight is used plus `offset`. `embeddings` are all that write the first
    hidden state. `keeps_mean`: norms take the mean away, and rotations have to keep it.
    """

    kinds: tuple[KindOfLayer, ...]
    norm: str = ""
    offset: float = 0.0
    embeddings: tuple[str, ...] = ()
    keeps_mean: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    difference: Mapping[str, float] = field(default_factory=dict)
    """Largest difference of logits, relative to the largest, by rotation."""

    def to_json(self) -> dict[str, Any]:
        """The places as JSON data; the inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ProvenRotations:
        """The places in the output of `to_json`."""
        kinds = tuple(_kind(kind) for kind in data["kinds"])
        return cls(**{**data, "kinds": kinds, "embeddings": tuple(data["embeddings"])})

    @classmethod
    def load(cls, artifact: Artifact) -> ProvenRotations:
        """The places in the result of node `rotations`."""
        return cls.from_json(artifact.json(FILE))


def _kind(data: Mapping[str, Any]) -> KindOfLayer:
    return KindOfLayer(
        layers=tuple(data["layers"]),
        head_dim=data["head_dim"],
        norms=tuple(map(pattern_from_json, data["norms"])),
        writers=tuple(data["writers"]),
        values=tuple(map(pattern_from_json, data["values"])),
        fused=tuple(FusedValues(**each) for each in data["fused"]),
    )
