"""Search for the factor of a smoothing pair: the candidate that costs its readers' outputs least.

The error of a candidate is :mod:`stages.compress.transforms.candidate_loss`'s, summed over all
readers that are quantized. Leaving the pair as it is is always one of the candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import StageFailed
from stages.compress.folding import by_target, fold, readers
from stages.compress.grid import ROW_STRATEGIES, Grid
from stages.compress.layer.state import LayerState
from stages.compress.pairs.input_errors import input_errors
from stages.compress.shared_scales import grids_of, partners
from stages.compress.solvers.numerical_error import NumericalError, all_finite
from stages.compress.transforms.candidate_loss import (
    Candidate,
    Observe,
    energy,
    folded,
    losses,
)
from stages.model.blueprint import Pair

AT_ONCE = 8
"""Candidates whose rounding errors of inputs are held in memory together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Factors s [out] of the source's channels, float32, and the options that led to them."""

    s: Tensor
    options: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounder:
    """How weights are rounded for a look: by an observer, which may want the Gram diagonal."""

    observe: Observe
    importance: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Unit:
    """Readers with one input, format and global scale."""

    names: tuple[str, ...]
    grid: Grid


def fold_best(
    layer: LayerState, pair: Pair, choices: Sequence[Choice], rounder: Rounder, *, modifier: str
) -> None:
    """Fold the factors with the least error into a pair, or none where none lowers it.

    What was chosen, and the error relative to the outputs before and after, goes to
    `layer.searched`. Ties go to the earlier one. Raises StageFailed where an error is not finite.
    """
    options: list[Mapping[str, Any]] = [
        dict.fromkeys(choices[0].options),
        *(c.options for c in choices),
    ]
    s = [None, *(by_target(choice.s, pair) for choice in choices)]
    try:
        errors, whole = _errors(layer, pair, s, rounder)
        _check(errors, options)
    except NumericalError as trouble:
        raise failed(modifier, pair, trouble) from trouble
    best = int(errors.argmin())
    if best > 0:
        fold(layer, pair, choices[best - 1].s)
    relative = (errors / whole if whole > 0 else torch.zeros_like(errors)).tolist()
    layer.searched.append(
        {
            "name": pair.source,
            "modifier": modifier,
            "targets": list(pair.targets),
            **options[best],
            "error_before": relative[0],
            "error": relative[best],
        }
    )


def _errors(
    layer: LayerState, pair: Pair, candidates: Sequence[Tensor | None], rounder: Rounder
) -> tuple[Tensor, float]:
    """The error of every candidate, float64 [n], and the squared outputs of all readers."""
    errors, whole = torch.zeros(len(candidates), dtype=torch.float64), 0.0
    for leader, units in _units(layer, pair).items():
        G = layer.statistics.gram(leader)
        if G is None:
            continue
        if not all_finite(G):
            raise NumericalError(
                name=leader,
                reason="the Gram matrix of its inputs is not finite",
                remedy="calibrate with more or other samples",
            )
        U, importance = folded(G), G.diagonal().clone() if rounder.importance else None
        for unit in units:
            weights = [layer.tensors[f"{name}.weight"] for name in unit.names]
            weight = torch.cat([each.to(G.device).float() for each in weights])
            whole += energy(weight, U)
            for start in range(0, len(candidates), AT_ONCE):
                some = [_candidate(layer, unit, s, G) for s in candidates[start : start + AT_ONCE]]
                errors[start : start + len(some)] += losses(
                    weight, U, some, unit.grid, rounder.observe, importance=importance
                )
    return errors, whole


def _candidate(layer: LayerState, unit: _Unit, s: Tensor | None, G: Tensor) -> Candidate:
    own = None if s is None else s.to(G.device)
    return Candidate(
        s=torch.ones(len(G), device=G.device) if own is None else own,
        inputs=input_errors(layer, unit.names, own),
    )


def _units(layer: LayerState, pair: Pair) -> dict[str, list[_Unit]]:
    """The readers that are quantized by who leads their input, as they are looked at together."""
    grids, together = grids_of(layer), partners(layer)
    found: dict[str, list[_Unit]] = {}
    wanted = [name for name in readers(layer, pair) if layer.statistics.tokens(name) > 0]
    for leader, names in _by_unit(layer, wanted, grids, together):
        found.setdefault(leader, []).append(_Unit(names=names, grid=grids[names[0]]))
    return found


def _by_unit(
    layer: LayerState,
    wanted: Sequence[str],
    grids: Mapping[str, Grid],
    together: Mapping[str, tuple[str, ...]],
) -> Iterator[tuple[str, tuple[str, ...]]]:
    done: set[str] = set()
    for name in wanted:
        if name in done:
            continue
        leader, names = layer.statistics.leader(name), tuple([name])
        if grids[name].strategy in ROW_STRATEGIES:
            names = tuple(
                other
                for other in together[name]
                if other in wanted
                and layer.statistics.leader(other) == leader
                and layer.resolved[other].scheme == layer.resolved[name].scheme
            )
        done.update(names)
        yield leader, names


def _check(errors: Tensor, options: Sequence[Mapping[str, Any]]) -> None:
    wrong = (~torch.isfinite(errors)).nonzero().flatten().tolist()
    if wrong:
        raise NumericalError(
            name="weight",
            reason=f"the output error under {dict(options[wrong[0]])} is not finite",
            remedy="look at these weights and their inputs, or leave the modifier out",
        )


def failed(modifier: str, pair: Pair, trouble: NumericalError) -> StageFailed:
    """The error of a transform that finds no factors for a pair."""
    more = f" and {len(pair.targets) - 3} more" if len(pair.targets) > 3 else ""
    return StageFailed(
        f"modifier {modifier} finds no factors between {pair.source} and "
        f"{', '.join(pair.targets[:3])}{more}: {trouble.reason}",
        remedy=trouble.remedy,
    )
