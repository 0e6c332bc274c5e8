"""Steps by which tensors of a checkpoint become a rotated model's, as data.

Neither torch nor safetensors is imported here, so that a plan stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from stages.compute.rotation import RotationSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One change of a tensor; steps follow each other.

    `multiply` and `divide` name the tensor of a norm's weight [channels]: columns are multiplied by
    it plus `offset`, or divided. `fill` makes every entry this number. `rotate` names a rotation,
    applied along the dimension `dim`; with `period` only to some of its channels: in each run of so
    many to those from `start` on.
    """

    multiply: str = ""
    divide: str = ""
    offset: float = 0.0
    fill: float | None = None
    rotate: str = ""
    dim: int = -1
    period: int = 0
    start: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class RotatedTensors:
    """What is done to the tensors of a checkpoint so that they are a rotated model's.

    `steps`: by tensor. `rotations`: by the name that steps give them. `aliases`: tensors that the
    checkpoint does not have, such as an untied lm_head, and what they are copies of before any
    step. `asked`: the options that led here. `threads`: those of torch that compute.
    """

    steps: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
    rotations: Mapping[str, RotationSpec] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1

    def to_json(self) -> dict[str, Any]:
        """It as JSON data; the inverse of `from_json`."""
        steps = {name: [_brief(step) for step in steps] for name, steps in self.steps.items()}
        return {**asdict(self), "steps": steps}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RotatedTensors:
        """What the output of `to_json` says."""
        steps = {n: tuple(Step(**step) for step in steps) for n, steps in data["steps"].items()}
        rotations = {name: RotationSpec(**spec) for name, spec in data["rotations"].items()}
        return cls(**{**data, "steps": steps, "rotations": rotations})


def _brief(step: Step) -> dict[str, Any]:
    default = asdict(Step())
    return {name: value for name, value in asdict(step).items() if value != default[name]}
