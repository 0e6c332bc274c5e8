"""The modifier `autoround`: learned rounding of a decoder layer, and what it starts from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from pipeline.errors import UserError
from stages.compress.modifiers.base import Problem, Solver, one_of
from stages.compress.modifiers.gptaq import Gptaq
from stages.compress.modifiers.gptq import Gptq
from stages.compress.modifiers.rtn import Rtn

if TYPE_CHECKING:
    from stages.compress.grid import Quantized

OBSERVED = ("observer", "on_failure")
"""Options of GPTQ that rounding to nearest has as well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoRound(Gptq):
    """Solve a layer by GPTQ, then learn all its codes and scales together on the layer's output.

    The options of `gptq` are those of the solution it starts from.
    """

    kind: ClassVar[str] = "autoround"
    version: ClassVar[int] = 2

    start: str = "gptq"
    """What learning starts from: gptq, gptaq, or rtn (rounded to nearest under `observer`)."""
    iterations: int = 32
    """Steps for each layer; 0 leaves the start as it is."""
    lr: float | None = None
    """First step of a code, in codes; falls linearly to 0. None: 1 / iterations, see `rate`."""
    reach: float = 0.35
    """How far from its code a weight starts at most, in codes: nearer to 0.5, more codes change."""
    scale_lr: float = 0.002
    """First step of a group's scale, as a part of it; 0 leaves scales alone."""
    batch_size: int = 4
    """Sequences of a step."""
    held_out: float = 0.0
    """Part of the sequences that only tell which iteration is kept; 0: the last one is."""
    seed: int = 0
    """Draws the held-out sequences and the batches."""

    def __post_init__(self) -> None:
        super(AutoRound, self).__post_init__()
        one_of("start", self.start, ("gptq", "gptaq", "rtn"))
        for name, low in (("iterations", 0), ("batch_size", 1)):
            if getattr(self, name) < low:
                raise UserError(f"{name} is {getattr(self, name)}", remedy=f"give {low} or more")
        for name, value, most in (("lr", self.rate, 1.0), ("scale_lr", self.scale_lr, 0.1)):
            if not 0 <= value <= most:
                raise UserError(f"{name} is {value}", remedy=f"give 0 or more, at most {most}")
        if not 0 <= self.reach < 0.5:
            raise UserError(f"reach is {self.reach}", remedy="give 0 or more, less than 0.5")
        if not 0 <= self.held_out <= 0.5:
            raise UserError(
                f"held_out is {self.held_out}", remedy="give 0 or more, at most 0.5: a part of 1"
            )
        if self.start == "rtn" and (idle := self._idle_options()):
            raise UserError(
                f"modifier.autoround.{idle[0]} is set, but start is rtn, which has no such option",
                remedy="leave it out, or say start: gptq",
            )

    def _idle_options(self) -> list[str]:
        """Options of GPTQ that are not the default."""
        plain = Gptq()
        names = [option.name for option in fields(Gptq) if option.name not in OBSERVED]
        return [name for name in names if getattr(self, name) != getattr(plain, name)]

    @property
    def rate(self) -> float:
        """First step of a code: by default SignRound's, with which all of them make half a code."""
        return self.lr if self.lr is not None else 1 / max(1, self.iterations)

    @property
    def learns(self) -> bool:
        return self.iterations > 0

    @property
    def aims(self) -> bool:
        return self.start == "gptaq"

    def aimed(self) -> Gptaq:
        """The solver of what learning starts from, where that is aimed."""
        return Gptaq(**{option.name: getattr(self, option.name) for option in fields(Gptq)})

    def outside(self) -> Solver:
        """What solves each weight by itself."""
        if self.start == "rtn":
            policy = "error" if self.on_failure == "fallback" else self.on_failure
            return Rtn(observer=self.observer, on_failure=policy)
        return Gptq(**{option.name: getattr(self, option.name) for option in fields(Gptq)})

    def solve(self, problem: Problem) -> Quantized:
        return self.outside().solve(problem)
