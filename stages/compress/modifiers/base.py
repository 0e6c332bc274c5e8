"""Base classes of modifiers: Rotation, Transform, Pruner, Solver, and the Problem of a solver.

A plugin subclasses one of the last four. Light: no torch is imported here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.errors import UserError
from pipeline.key import Json, canonical

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from stages.compress.grid import Grid, Quantized
    from stages.compress.layer.state import LayerState
    from stages.model.blueprint import Blueprint
    from stages.model.rotations.options import RotationOptions
    from stages.quantized.stored_weight import Stored

POLICIES = ("error", "fallback", "skip")


class Modifier(ABC):
    """One entry of `modifier` in a config: a frozen dataclass of its options with a `kind`."""

    __slots__ = ()
    kind: ClassVar[str]
    version: ClassVar[int] = 1
    """To be raised when the same options lead to another result."""

    def statistics(self) -> frozenset[str]:
        """Which statistics of `calibrate` it needs: gram, absmax, absmean, or a plugin's."""
        return frozenset()

    def input_statistics(self) -> frozenset[str]:
        """Which statistics it needs beyond these where the inputs of Linears are quantized too."""
        return frozenset()

    def idle(self, blueprint: Blueprint) -> str:
        """Why it would change nothing of a model; "" where it would change something."""
        del blueprint
        return ""

    def check_device(self, device: str) -> None:
        """Raise UserError where an option needs another device than this one: cpu, cuda, cuda:1."""
        del device

    def said(self) -> Any:
        """Its options as plain data, for keys and recipes."""
        return canonical(self)

    def semantics(self) -> list[Json]:
        """What of it can change a result: part of the key."""
        return [self.kind, self.said(), *([self.version] if self.version != 1 else [])]


class ExpertPruner(Modifier):
    """Has been at work before a layer is compressed: the graph's source has fewer experts."""

    __slots__ = ()


class Rotation(Modifier):
    """Turns channels of the whole model before anything of it is measured: node `rotate` does.

    Layers are read rotated, so that compressing one has nothing to do for it.
    """

    __slots__ = ()
    roles: ClassVar[Mapping[str, str]] = {"blueprint": "rotate"}
    """What it changes in `graph.roles`: which node says how tensors are read."""

    @property
    @abstractmethod
    def rotation(self) -> RotationOptions:
        """Which rotations, and of what kind."""


class Transform(Modifier):
    """Rewrites a layer so that it computes the same and is easier to quantize."""

    __slots__ = ()

    @abstractmethod
    def rewrite(self, layer: LayerState) -> None:
        """Change tensors of `layer`, and tell its statistics what became of the inputs."""

    @property
    def tries(self) -> int:
        """How many factors it weighs by the output error of each Linear: for estimates of time."""
        return 0


class Pruner(Modifier):
    """Sets entries of every weight to zero, which the solver after it keeps."""

    __slots__ = ()

    @abstractmethod
    def prune(self, weight: Tensor, H: Tensor | None) -> Tensor:
        """`weight` [out, in] with its zeros; what is left may have other values.

        H: float32 [in, in], the Gram matrix of its inputs; None unless `statistics` has gram.
        Raises NumericalError where there is no such weight.
        """


class Solver(Modifier):
    """Chooses the quantized weight. `on_failure` says what numerical trouble leads to.

    One that `keeps` takes what the source holds: it is handed `Problem.stored`, one module at a
    time, and needs no calibration.
    """

    __slots__ = ()
    keeps: ClassVar[bool] = False
    on_failure: str

    @property
    def negates(self) -> bool:
        """Whether its scales may be negative."""
        return bool(getattr(self, "negative_scales", False))

    @property
    def learns(self) -> bool:
        """Whether it improves the solved weights of a decoder layer together, by running it."""
        return False

    def of(self, module: str) -> Solver:
        """The solver of one module of a decoder layer, by its name: itself where all are alike."""
        del module
        return self

    @property
    def aims(self) -> bool:
        """Whether it solves a decoder layer's weights in order, running it in both models."""
        return False

    def outside(self) -> Solver:
        """The solver of what lies outside the decoder layers, which are all that can be run."""
        return self

    @abstractmethod
    def solve(self, problem: Problem) -> Quantized:
        """The weight in place of `problem.weight`; raises NumericalError if there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A weight [out, in] to quantize; rows may come from several modules that share an input.

    H: float32 [in, in] Gram matrix of the inputs, None where the solver asks for none.
    grid: the number format. global_scale: float32 [1] for tensor_group formats.
    stored: how the source holds the weight, for a solver that keeps it; None where it is dense.
    statistics: what the solver asked for beside gram, by name, as `calibrate` stored it.
    identity: names weight and H by their content, and the device; None where they were changed
    since they were read. pruned: the weight as a pruner left it, [out, in]; its zeros are zeros of
    the result. None where nothing was pruned.
    """

    weight: Tensor
    H: Tensor | None
    grid: Grid
    global_scale: Tensor | None
    stored: Stored | None = None
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    identity: tuple[str, ...] | None = None
    pruned: Tensor | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that plain scales are stored in: the model's."""
        return self.grid.dtype

    @property
    def args(self) -> Any:
        """Deprecated: the number format as compressed-tensors' QuantizationArgs; use `grid`."""
        from stages.compress.compressed_tensors_math import quantization_args
        from stages.compress.deprecated_args import warn

        warn("Problem.args is deprecated: use Problem.grid")
        return quantization_args(self.grid)


def one_of(what: str, value: str, allowed: Sequence[str]) -> None:
    """Raise UserError unless `value` is allowed."""
    if value not in allowed:
        raise UserError(f"{what} is {value!r}", remedy=f"choose one of {', '.join(allowed)}")


def check_order(modifiers: Sequence[object]) -> None:
    """Raise UserError unless the order is right.

    That is what prunes experts, at most one rotation, transforms, at most one pruner, one solver.
    """
    kinds = [str(getattr(modifier, "kind", modifier)) for modifier in modifiers]
    for modifier, kind in zip(modifiers, kinds, strict=True):
        if not isinstance(modifier, Modifier):
            raise UserError(f"modifier {kind!r} is no Rotation, Transform, Pruner or Solver")
        if isinstance(modifier, ExpertPruner) and modifier is not modifiers[0]:
            raise UserError(
                f"modifier {kind!r} comes after {kinds[0]!r}, which would work on experts that go",
                remedy=f"put {kind!r} first",
            )
    turns = [index for index, m in enumerate(modifiers) if isinstance(m, Rotation)]
    if len(turns) > 1:
        named = ", ".join(kinds[index] for index in turns)
        raise UserError(
            f"modifiers: there are {len(turns)} rotations: {named}", remedy="leave one of them"
        )
    earlier = [i for i, m in enumerate(modifiers) if not isinstance(m, ExpertPruner | Rotation)]
    if turns and earlier and earlier[0] < turns[0]:
        raise UserError(
            f"modifier {kinds[turns[0]]!r} comes after {kinds[earlier[0]]!r}, and the model is "
            "rotated before any of its layers is looked at",
            remedy=f"put {kinds[turns[0]]!r} first",
        )
    solvers = [index for index, m in enumerate(modifiers) if isinstance(m, Solver)]
    if len(solvers) > 1:
        named = ", ".join(kinds[index] for index in solvers)
        raise UserError(
            f"modifiers: there are {len(solvers)} solvers: {named}", remedy="leave one of them"
        )
    pruners = [index for index, m in enumerate(modifiers) if isinstance(m, Pruner)]
    if len(pruners) > 1:
        named = ", ".join(kinds[index] for index in pruners)
        raise UserError(
            f"modifiers: there are {len(pruners)} pruners: {named}", remedy="leave one of them"
        )
    keeper = next((m for m in modifiers if isinstance(m, Solver) and m.keeps), None)
    if keeper is not None and len(modifiers) > 1:
        raise UserError(
            f"modifier {keeper.kind!r} takes over weights that {kinds[0]!r} would rewrite",
            remedy=f"leave one of them: modifier={keeper.kind}, or a solver that quantizes anew",
        )
    if solvers and solvers[0] != len(modifiers) - 1:
        raise UserError(
            f"modifier {kinds[-1]!r} comes after the solver {kinds[solvers[0]]!r}, which has "
            "already chosen the weights",
            remedy=f"put {kinds[solvers[0]]!r} last",
        )
    learner = next((m for m in modifiers if isinstance(m, Solver) and m.learns), None)
    if pruners and learner is not None:
        raise UserError(
            f"modifier {learner.kind!r} learns other codes for the zeros of {kinds[pruners[0]]!r}",
            remedy=f"leave one of them, or say modifier=[{kinds[pruners[0]]},gptq]: it keeps zeros",
        )
    aimer = next((m for m in modifiers if isinstance(m, Solver) and m.aims), None)
    if pruners and aimer is not None:
        raise UserError(
            f"modifier {aimer.kind!r} corrects weights before they are quantized, the zeros of "
            f"{kinds[pruners[0]]!r} too",
            remedy=f"leave one of them, or say modifier=[{kinds[pruners[0]]},gptq]: it keeps zeros",
        )
    late = [i for i, m in enumerate(modifiers) if pruners and isinstance(m, Transform)]
    if late and late[-1] > pruners[0]:
        raise UserError(
            f"modifier {kinds[late[-1]]!r} comes after {kinds[pruners[0]]!r}, and would change the "
            "weights that were pruned",
            remedy=f"put {kinds[late[-1]]!r} first",
        )
