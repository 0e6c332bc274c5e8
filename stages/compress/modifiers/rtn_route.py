"""Routes of rounding to nearest: straight from file to file, fused in memory, or as any solver.

One decision for the plan, from the headers that it knows, and for the node that runs, from those of
the file that it has opened; only whether every weight is finite is found out on the way. Light: no
torch is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stages.compress.modifiers.base import Modifier, Pruner, Rotation, Solver, Transform
from stages.compress.modifiers.rtn import Rtn
from stages.schemes.layouts import is_plain, layout_of
from stages.schemes.protocols import WeightFormat
from stages.schemes.scheme import SchemeGroup

DTYPE = "bfloat16"
"""The dtype of models that the fused kernels are for."""
STORED = "BF16"
"""What safetensors calls it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundedWeight:
    """A weight [out, in] to be rounded: its format, shape, and dtype in plain safetensors files.

    `stored`: as safetensors names dtypes; None where it is not held in such files, or not known to.
    """

    scheme: SchemeGroup
    shape: tuple[int, ...]
    stored: str | None


def goes_straight(
    modifiers: Sequence[Modifier], device: str, dtype: str, weights: Iterable[RoundedWeight]
) -> bool:
    """Whether a layer with these weights, of a model in `dtype`, goes from file to file.

    That is where all of them are rounded by fused kernels and their inputs need no numbers.
    """
    return only_rounds(modifiers, device) and all(
        weight.scheme.weights is not None
        and _without_numbers(weight.scheme)
        and is_fused(
            weight.scheme.weights, layout_of(weight.scheme), weight.shape, weight.stored, dtype
        )
        for weight in weights
    )


def is_fused(
    args: WeightFormat, layout: str, shape: tuple[int, ...], stored: str | None, dtype: str
) -> bool:
    """Whether `stages.compress.solvers.rtn_fused.direct` rounds and packs this weight.

    E4M3 or integers, symmetric, scales in bfloat16.
    """
    return stored == STORED and dtype == DTYPE and is_plain(shape, args, layout)


def only_rounds(modifiers: Sequence[Modifier], device: str) -> bool:
    """Whether weights become their nearest codes under min-max scales, on a CPU, and that is all.

    Without a solver they do.
    """
    solver = next((m for m in modifiers if isinstance(m, Solver)), Rtn())
    rounded = isinstance(solver, Rtn) and solver.observer == "minmax" and not solver.per_target
    rewrites = any(isinstance(m, (Rotation, Transform, Pruner)) for m in modifiers)
    return rounded and device == "cpu" and not rewrites


def _without_numbers(scheme: SchemeGroup) -> bool:
    """Whether inputs are not quantized, or by scales that are found when the model runs."""
    return scheme.input_activations is None or scheme.input_activations.dynamic is True
