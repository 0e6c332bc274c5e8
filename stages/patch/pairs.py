"""Stage `pairs`: smoothing pairs of a model, found and proven on a small one of its class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.stage import Task
from stages.model.pairs.proven import FILE, KindOfLayer
from stages.patch.by_structure import ByStructure


@dataclass(frozen=True, eq=False)
class Pairs(ByStructure):
    """Writes `pairs.json`: between which modules a transform may move a factor per channel.

    They are found and proven on a small random model of the class and with the structure of
    config.json, so all fine-tunes of an architecture share the result.
    """

    kind: ClassVar[str] = "pairs"
    version: ClassVar[int] = 3
    also_imports: ClassVar[tuple[str, ...]] = ("stages.model.pairs.prove_pairs",)

    def run(self, task: Task) -> None:
        from stages.model.pairs.prove_pairs import prove_pairs
        from stages.model.shrunken import shrunken

        config = self.model or {}
        proven = prove_pairs(config, shrunken(config))
        draft = task.outputs["out"]
        draft.write_json(FILE, proven.to_json())
        told = {"kinds": [_told(kind) for kind in proven.kinds], "refused": list(proven.refused)}
        draft.meta["result"] = {"pairs": told}


def _told(kind: KindOfLayer) -> dict[str, Any]:
    """One kind of layers in result.json."""
    pairs = [{"source": p.source, "targets": list(p.targets)} for p in kind.patterns]
    return {"layers": list(kind.layers), "pairs": pairs}
