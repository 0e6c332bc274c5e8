"""Stage `rotations`: where a model may be rotated, proven on a small one of its class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.stage import Task
from stages.model.pairs.proven import PAIRS, ProvenPairs
from stages.model.rotations.proven import FILE, ProvenRotations
from stages.patch.by_structure import ByStructure


@dataclass(frozen=True, eq=False)
class Rotations(ByStructure):
    """Writes `rotations.json`: which modules read and write the residual stream, and head values.

    A small random model of the class and with the structure of config.json is rotated in float64:
    its logits stay what they were, or the rotation is refused with the reason. All fine-tunes of an
    architecture share the result. Input `pairs` is the result of node `pairs`.
    """

    kind: ClassVar[str] = "rotations"
    version: ClassVar[int] = 2
    also_imports: ClassVar[tuple[str, ...]] = ("stages.model.rotations.prove_rotations",)

    def run(self, task: Task) -> None:
        from stages.model.rotations.prove_rotations import prove_rotations
        from stages.model.shrunken import shrunken

        config = self.model or {}
        pairs = ProvenPairs.load(task.inputs[PAIRS])
        proven = prove_rotations(config, shrunken(config), pairs)
        draft = task.outputs["out"]
        draft.write_json(FILE, proven.to_json())
        draft.meta["result"] = {"rotations": _told(proven)}


def _told(proven: ProvenRotations) -> dict[str, Any]:
    """What is proven, in result.json."""
    return {
        "difference": dict(proven.difference),
        "refused": dict(proven.refused),
        "keeps_mean": proven.keeps_mean,
        "kinds": [
            {
                "layers": list(kind.layers),
                "norms": {pattern.source: list(pattern.targets) for pattern in kind.norms},
                "writers": list(kind.writers),
                "values": {pattern.source: list(pattern.targets) for pattern in kind.values}
                | {fused.source: [fused.target] for fused in kind.fused},
            }
            for kind in proven.kinds
        ],
    }
