"""Stage `card`: the finished checkpoint, its model card with what an evaluation measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.stage import Estimate, Site, Stage, Survey
from stages.compute.estimates import HEADERS_PROCESS


@dataclass(frozen=True, kw_only=True, slots=True)
class CardConfig:
    """Nothing is left to say: all comes with the checkpoint and the measures."""


@dataclass(frozen=True, eq=False)
class Card(Stage):
    """Output `out`: the folder `checkpoint/`, its files hard links to those of input `checkpoint`.

    README.md tells what the other inputs measured: `eval`, a result with `eval.json`, and `tasks`,
    one with `tasks.json`; either may be left out. All others are only waited for: a hard link sets
    the change time of a file, so that nobody may be reading the saved one, who would take it for
    a change of its content. And a checkpoint that fails its checks is not finished.
    """

    kind: ClassVar[str] = "card"
    version: ClassVar[int] = 1
    work: ClassVar[tuple[str, ...]] = ("stages.save.card_run",)
    Config: ClassVar[type] = CardConfig

    def survey(self, site: Site) -> Survey:
        del site
        return Survey(estimates={None: Estimate(bytes=100_000, memory=HEADERS_PROCESS)})
