"""The schema of `compress` and `compress_outside`, and which statistics its modifiers need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import UserError
from pipeline.key import Json, canonical
from stages.compress.modifiers.base import (
    ExpertPruner,
    Modifier,
    Pruner,
    Rotation,
    Solver,
    Transform,
    check_order,
)
from stages.compress.modifiers.rtn_route import only_rounds
from stages.compute.numerics import Numerics, summed
from stages.schemes.scheme import SchemeConfig

STATISTICS = ("gram", "absmax", "absmean", "rows", "range", "histogram")


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressConfig:
    """A scheme, and how its numbers are found: transforms, a pruner, then one solver (or rtn)."""

    scheme: SchemeConfig = field(metadata={"lands": True})
    """The number format of weights and activations, and the modules it is for."""
    modifiers: tuple[Any, ...] = field(
        default=(), metadata={"components": "modifier", "lands": True}
    )
    """How the numbers are found: reap, transforms in order, a pruner if any, then one solver."""
    numerics: Numerics = field(default_factory=Numerics)
    part_parameters: int | None = field(default=None, metadata={"key": False})
    """Weights of a decoder layer that one node solves, about: groups of Linears, experts some at a
    time, side by side where there are several workers; null: all of them. No byte depends on it."""

    def __post_init__(self) -> None:
        check_order(self.modifiers)
        for modifier in self.modifiers:
            modifier.check_device(self.numerics.device)
        options = self.scheme.options
        candidates = [(name, options[name].alone()) for name in self.scheme.candidates]
        for name, group in [*self.scheme.ordered(), *candidates]:
            inputs = group.input_activations
            static = inputs is None or inputs.observer in (None, "static_minmax")
            if self.transforms and inputs is not None and not static:
                raise UserError(
                    f"{_key(name)}.input_activations.observer is {inputs.observer!r}, and "
                    f"{self.transforms[0].kind!r} changes the inputs after they were observed",
                    remedy="say observer: static_minmax",
                )
        self._check_parts()

    def _check_parts(self) -> None:
        """Raise UserError unless what is asked for may be done to parts of a layer."""
        size = self.part_parameters
        if size is None:
            return
        if size < 1:
            raise UserError(f"part_parameters is {size}", remedy="give 1 or more, or null")
        solvers = (self.learner, self.aimer)
        whole = next((m for m in (*self.transforms, *solvers) if m is not None), None)
        if whole is not None:
            raise UserError(
                f"part_parameters is {size}, and modifier {whole.kind} looks at a layer as a whole",
                remedy="give null, or leave the modifier out",
            )

    def undivided(self) -> UserError | None:
        """What is wrong where a stage that has no parts is to build them; None: nothing."""
        if self.part_parameters is None:
            return None
        return UserError(
            f"part_parameters is {self.part_parameters}, and only decoder layers have parts",
            remedy="give it to the node compress",
        )

    @property
    def local(self) -> tuple[Modifier, ...]:
        """The modifiers that do something to a layer: not those that chose its experts before."""
        return tuple(m for m in self.modifiers if not isinstance(m, ExpertPruner))

    @property
    def rotation(self) -> Rotation | None:
        """The modifier whose rotations the model is given with."""
        return next((m for m in self.modifiers if isinstance(m, Rotation)), None)

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """The modifiers that rewrite a layer before it is solved."""
        return tuple(m for m in self.modifiers if isinstance(m, Transform))

    @property
    def pruner(self) -> Pruner | None:
        """The modifier that sets entries of weights to zero before they are solved."""
        return next((m for m in self.modifiers if isinstance(m, Pruner)), None)

    @property
    def profile(self) -> Pruner | None:
        """The pruner whose share of zeros differs between layers by their outliers, if any does."""
        return self.pruner if getattr(self.pruner, "sparsity_profile", None) else None

    @property
    def solver(self) -> Solver | None:
        """The modifier that chooses codes; None: they are rounded to nearest."""
        return next((m for m in self.modifiers if isinstance(m, Solver)), None)

    @property
    def learner(self) -> Solver | None:
        """The solver that learns by running the layer, if that is asked for."""
        return self.solver if self.solver is not None and self.solver.learns else None

    @property
    def aimer(self) -> Solver | None:
        """The solver that runs the layer beside the original one, if that is asked for."""
        return self.solver if self.solver is not None and self.solver.aims else None

    @property
    def runner(self) -> Solver | None:
        """The solver that runs the layer, to learn or to be aimed."""
        return self.learner or self.aimer

    @property
    def keeper(self) -> Solver | None:
        """The solver that takes over what the source is quantized to, if that is asked for."""
        return self.solver if self.solver is not None and self.solver.keeps else None

    @property
    def sums(self) -> bool:
        """Whether a result depends on the order of sums: of errors, of products, in a factor.

        Rounding under min-max scales, and keeping what a source holds, take each entry alone.
        """
        return self.keeper is None and not only_rounds(self.modifiers, "cpu")

    def numerics_key(self) -> Json:
        """The part of the key that says on what is computed."""
        return summed(self.numerics) if self.sums else canonical(self.numerics)


def _key(group: str) -> str:
    """The key of a group that `SchemeConfig.ordered` names."""
    return group if group == "scheme" else f"scheme.groups.{group}"


def needed_statistics(config: CompressConfig, *, solved: bool = True) -> tuple[str, ...]:
    """The statistics of `calibrate` that modifiers and calibrated inputs need.

    solved: those of the solver as well.
    """
    if config.keeper is not None:
        return ()
    needed: set[str] = set()
    groups = config.scheme.formats()
    modifiers = tuple(m for m in config.local if solved or m is not config.solver)
    if groups:
        needed.update(kind for m in modifiers for kind in m.statistics())
    if any(group.input_activations is not None for group in groups):
        needed.update(kind for m in modifiers for kind in m.input_statistics())
    observed = {g.input_activations.statistic for g in groups if g.input_activations}
    needed |= {kind for kind in observed if kind is not None}
    if "range" in needed and config.transforms:
        needed.add("absmax")  # what becomes of a range is known from the channels
    known = tuple(kind for kind in STATISTICS if kind in needed)
    return (*known, *sorted(needed.difference(STATISTICS)))
