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


@dataclass(frozen=True, kw_only=True, slots=True)
class KindOfLayer:
    """Decoder layers of one kind, by name, and who reads and writes the residual stream in them.

    `norms` are pairs of a norm of the residual stream and the modules that read it; `writers` are
    patterns of the Linears whose outputs are added to it. `values` are pairs of two Linears between
    which each head of `head_dim` channels may be rotated.
    """

    layers: tuple[str, ...]
    head_dim: int
    norms: tuple[PairPattern, ...]
    writers: tuple[str, ...]
    values: tuple[PairPattern, ...]


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
    )
