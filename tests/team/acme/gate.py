"""The stage `gate`: a run fails whose model got too much worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import StageFailed, UserError
from pipeline.stage import Stage, Task


@dataclass(frozen=True, kw_only=True, slots=True)
class GateConfig:
    most: float = 1.05
    """The largest perplexity after compression, as a multiple of the one before."""

    def __post_init__(self) -> None:
        if self.most <= 0:
            raise UserError(f"most is {self.most}", remedy="give more than 0, such as 1.05")


class Gate(Stage):
    kind: ClassVar[str] = "gate"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = GateConfig

    def run(self, task: Task) -> None:
        found = task.inputs["eval"].json("eval.json")["perplexity"]
        ratio = found["compressed"] / found["original"]
        if ratio > self.config.most:
            raise StageFailed(
                f"perplexity grew {ratio:.3f} times, {self.config.most} times are allowed",
                remedy="take a scheme with more bits, or raise gate.most",
            )
        task.outputs["out"].write_json("gate.json", {"ratio": ratio})
        task.outputs["out"].meta["result"] = {"eval": {"gate": {"ratio": ratio}}}
