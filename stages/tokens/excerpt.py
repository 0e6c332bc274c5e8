"""Stage `excerpt`: a subset of the rows of a token set, evenly spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.stage import Estimate, Site, Stage, Survey
from stages.compute.estimates import NUMPY_PROCESS


@dataclass(frozen=True, kw_only=True, slots=True)
class ExcerptConfig:
    """`sequences`: the largest number of rows."""

    sequences: int = 16

    def __post_init__(self) -> None:
        if self.sequences < 1:
            raise UserError(f"sequences is {self.sequences}", remedy="give 1 or more")


@dataclass(frozen=True, eq=False)
class Excerpt(Stage):
    """Output `out`: like that of `tokens`, with rows evenly spread over all of them."""

    kind: ClassVar[str] = "excerpt"
    version: ClassVar[int] = 1
    work: ClassVar[tuple[str, ...]] = ("stages.tokens.excerpt_run",)
    Config: ClassVar[type] = ExcerptConfig
    config: ExcerptConfig

    def survey(self, site: Site) -> Survey:
        facts = site.facts.get("tokens")
        if not isinstance(facts, dict):
            return Survey()
        rows = min(self.config.sequences, facts["samples"])
        size = 4 * rows * facts["sequence_length"]
        cost = Estimate(bytes=size, memory=NUMPY_PROCESS + size, seconds=0.1)
        return Survey(facts={**facts, "samples": rows}, estimates={None: cost})
