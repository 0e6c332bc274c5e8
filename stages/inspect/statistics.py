"""Gram matrices of a run's calibration, read from the store by the run's plan."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.store import Store
from stages.weights.tensor_content import reader

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.store.artifact import StoredArtifact

KIND, OUTPUT = "calibrate", "gram"


@dataclass(frozen=True, kw_only=True)
class Grams:
    """Gram matrices by module name, each read when asked for; `where` is the run they are of."""

    where: str
    artifacts: Mapping[str, StoredArtifact]
    leaders: Mapping[str, str]

    def of(self, module: str) -> Tensor | None:
        """Sum of x x^T over the tokens seen, float32 [in, in]; None where there is none."""
        leader = self.leaders.get(module, module)
        artifact = self.artifacts.get(leader)
        if artifact is None:
            return None
        return reader(artifact, f"{OUTPUT}.safetensors").read([leader])[leader].float()


def grams_of(run: Path, store: Store) -> Grams | None:
    """The Gram matrices that a run's plan names, as far as the store has them; None if it has none.

    Raises UserError for a folder without a plan.
    """
    plan = run / "plan.json"
    if not plan.is_file():
        raise UserError(
            f"there is no {plan}", remedy="give the folder of a run, which has a plan.json"
        )
    artifacts: dict[str, StoredArtifact] = {}
    leaders: dict[str, str] = {}
    try:
        rows = json.loads(plan.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{plan} cannot be read: {error}") from error
    for key in _keys(rows if isinstance(rows, list) else []):
        artifact = store.get(key)
        if artifact is None:
            continue
        groups, tokens = artifact.meta["groups"], artifact.meta["tokens"]
        leaders.update(groups)
        for module, count in tokens.items():
            if count and groups.get(module, module) == module:
                artifacts[module] = artifact
    return Grams(where=str(run), artifacts=artifacts, leaders=leaders) if artifacts else None


def _keys(rows: list[Any]) -> Iterator[str]:
    for row in rows:
        keys = row.get("keys") if isinstance(row, dict) and row.get("kind") == KIND else None
        if isinstance(keys, dict) and isinstance(keys.get(OUTPUT), str):
            yield keys[OUTPUT]
