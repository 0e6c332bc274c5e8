"""The modifier `gptq`: its options, and the solver it calls."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from pipeline.errors import UserError
from pipeline.key import WHEN_SET, Json
from stages.compress.modifiers.base import POLICIES, Problem, Solver, one_of
from stages.compress.modifiers.observer import (
    ORDERS,
    SHIPPED,
    PerTarget,
    check_entries,
    entry_for,
    identities,
    observe_by,
)

if TYPE_CHECKING:
    from stages.compress.grid import Quantized


def check_columns(block_size: int, dampening_frac: float) -> None:
    """Raise UserError unless columns can be solved in such blocks, with so much damping."""
    if block_size < 1:
        raise UserError(f"block_size is {block_size}", remedy="give 1 or more")
    if not 0 < dampening_frac < 1:
        raise UserError(
            f"dampening_frac is {dampening_frac}", remedy="give more than 0, less than 1"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Gptq(Solver):
    """Column by column, later columns making up for earlier ones, then refits and descent.

    `refit` and `descent` are sweeps over the result: of closed-form scale refits and of
    coordinate descent over the codes. `on_failure`: error, fallback (to rounding) or skip.
    """

    kind: ClassVar[str] = "gptq"

    block_size: int = 128
    """Columns solved before the rest of the weight is updated."""
    dampening_frac: float = 0.01
    """What is added to the diagonal of H, as a part of its mean."""
    actorder: str = "static"
    """static solves columns by falling activation and leaves groups as they are."""
    observer: str = "gram"
    """How scales are first chosen."""
    refit: int = 1
    descent: int = 1
    on_failure: str = "error"
    negative_scales: bool = field(default=False, metadata={"key": WHEN_SET})
    """Also try negative scales, for symmetric integers: their extra code then fits either sign."""
    tf32: bool = field(default=False, metadata={"key": WHEN_SET})
    """Multiply blocks of columns in TF32: faster, on a GPU only."""
    per_target: list[PerTarget] | None = field(default=None, metadata={"key": WHEN_SET})
    """Other options for some modules; null: none."""

    def __post_init__(self) -> None:
        one_of("actorder", self.actorder, ORDERS)
        check_entries(
            self.kind, self.observer, self.per_target, negative_scales=self.negative_scales
        )
        one_of("on_failure", self.on_failure, POLICIES)
        check_columns(self.block_size, self.dampening_frac)
        for name, value in (("refit", self.refit), ("descent", self.descent)):
            if value < 0:
                raise UserError(f"{name} is {value}", remedy="give 0 or more")

    def check_device(self, device: str) -> None:
        if self.tf32 and device == "cpu":
            raise UserError(
                "modifier.gptq.tf32 is true, but the device is cpu, which has no TF32",
                remedy="leave it out, or say device=cuda",
            )

    def statistics(self) -> frozenset[str]:
        return frozenset({"gram"})

    def semantics(self) -> list[Json]:
        return [*super(Gptq, self).semantics(), *identities(self.observer, self.per_target)]

    def of(self, module: str) -> Solver:
        if not self.per_target:
            return self
        found = entry_for(module, self.per_target)
        if found is None:
            return replace(self, per_target=None)
        return replace(
            self,
            observer=found.observer or self.observer,
            actorder=found.actorder or self.actorder,
            per_target=None,
        )

    def solve(self, problem: Problem) -> Quantized:
        from stages.compress.solvers import energy_cache as energies
        from stages.compress.solvers.gptq import gptq

        if problem.H is None:
            raise ValueError("gptq needs a Gram matrix")
        key = problem.identity and (problem.identity, self.dampening_frac, self.actorder, self.tf32)
        energy = energies.KNOWN.recall(key)
        found = gptq(
            problem.weight,
            problem.H,
            problem.grid.signed() if self.negative_scales else problem.grid,
            block_size=self.block_size,
            dampening_frac=self.dampening_frac,
            actorder=self.actorder,
            observer=self.observer if self.observer in SHIPPED else observe_by(self.observer),
            refit=self.refit,
            descent=self.descent,
            global_scale=problem.global_scale,
            energy=None if energy is None else energy.to(problem.weight.device),
            tf32=self.tf32,
            pruned=problem.pruned,
        )
        if energy is None and found.losses is not None:
            energies.KNOWN.remember(key, found.losses[:, 1])
        return found
