"""Stage `excerpt`: a subset of the rows of a token set, evenly spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.graph import Estimate
from pipeline.stage import Site, Stage, Survey, Task
from stages.tokens.stage import FILE


@dataclass(frozen=True, kw_only=True, slots=True)
class ExcerptConfig:
    """`sequences`: the largest number of rows."""

    sequences: int = 16

    def __post_init__(self) -> None:
        if self.sequences < 1:
            raise UserError(f"sequences is {self.sequences}", remedy="give 1 or more")


class Excerpt(Stage):
    """Output `out`: like that of `tokens`, with rows evenly spread over all of them."""

    kind: ClassVar[str] = "excerpt"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = ExcerptConfig
    config: ExcerptConfig

    def survey(self, site: Site) -> Survey:
        facts = site.facts.get("tokens")
        if not isinstance(facts, dict):
            return Survey()
        rows = min(self.config.sequences, facts["samples"])
        size = 4 * rows * facts["sequence_length"]
        cost = Estimate(bytes=size, memory=100_000_000 + size, seconds=0.1)
        return Survey(facts={**facts, "samples": rows}, estimates={None: cost})

    def run(self, task: Task) -> None:
        import numpy as np
        from safetensors.numpy import load_file, save_file

        tokens, draft = task.inputs["tokens"], task.outputs["out"]
        whole = load_file(tokens.file(FILE))
        count = len(whole["lengths"])
        rows = np.arange(min(self.config.sequences, count)) * count
        rows //= len(rows)
        taken = {name: np.ascontiguousarray(value[rows]) for name, value in whole.items()}
        save_file(taken, draft.path / FILE)
        draft.meta.update(tokens.meta)
        draft.meta.update(samples=len(rows), tokens=int(taken["lengths"].sum()))
