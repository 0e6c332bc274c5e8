"""Solve the modules of a layer: shared inputs together, small weights side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from pipeline.key import digest
from stages.compress.grid import ROW_STRATEGIES, Grid, Quantized
from stages.compress.layer.state import LayerState
from stages.compress.modifiers.base import Problem, Pruner, Solver
from stages.compress.modifiers.keep_source import stored_of
from stages.compress.shared_scales import gram_of
from stages.compress.solvers.numerical_error import NumericalError, all_finite
from stages.compress.solvers.output_error import ratio, relative_error
from stages.compress.solvers.rtn import with_codes
from stages.compute.row_tiles import one_threaded, shared_tile_pool
from stages.quantized.stored_weight import SIGNED

SMALL = 1 << 23
"""Elements of weight and Gram matrix up to which another is begun (float32 copies: some 0.3 GB)."""

T = TypeVar("T")


def fitting(cost: Sequence[int]) -> int:
    """How many may be under way at once, each taking so many elements; 1 where not even two."""
    costly = sorted(cost, reverse=True)
    most = min(len(cost), torch.get_num_threads())
    return max((n for n in range(2, most + 1) if sum(costly[:n]) <= SMALL), default=1)


def side_by_side(work: Sequence[Callable[[], T]], at_once: int) -> Iterator[T]:
    """What each of `work` gives, in order.

    One by one, each has all threads. Several at once share them, and run what is not cut in tiles
    on one thread each; tiles always do, so their bytes are the same either way.
    """
    if at_once == 1:
        yield from (one() for one in work)
        return
    with shared_tile_pool(), one_threaded(at_once) as drivers:
        begun: deque[Future[T]] = deque()
        try:
            for one in work:
                begun.append(drivers.submit(copy_context().run, one))
                if len(begun) > at_once:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()


ELEMENTS_AT_ONCE = 1 << 26
"""Largest stack of weights, in elements (float32: 256 MiB)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Solved:
    """What a module became, or why it did not: exactly one of `quantized` and `trouble` is set.

    `dead` counts the input channels that were zero for every token. `batch` is the same for modules
    that are solved one after another wherever they stand in the layer; empty: in the layer's order.
    """

    module: str
    quantized: Quantized | None = None
    relative_error: float | None = None
    trouble: NumericalError | None = None
    dead: int = 0
    batch: str = ""


def solve_layer(
    layer: LayerState,
    solver: Solver,
    grids: Mapping[str, Grid],
    global_scales: Mapping[str, Tensor],
    *,
    device: str,
    pruner: Pruner | None = None,
) -> Generator[Solved]:
    """Solve every module of `grids`, batch by batch; nothing is kept of a batch once it is out.

    The error of a module is measured in the Gram metric where the solver or the pruner uses it.
    """
    stacks = batches(layer, solver, grids, global_scales)

    def solved(batch: str, names: list[str]) -> list[Solved]:
        by = (pruner, solver.of(names[0]))
        found = _solve(layer, by, names, grids, global_scales, device)
        return [replace(one, batch=batch) for one in found]

    work = [partial(solved, batch, names) for batch, names in stacks]
    at_once = fitting([_cost(layer, names) for _, names in stacks]) if device == "cpu" else 1
    for found in side_by_side(work, at_once):
        yield from found


def _cost(layer: LayerState, stack: list[str]) -> int:
    """Elements of the stacked weights and of their Gram matrix."""
    weights = [layer.tensors[f"{name}.weight"] for name in stack]
    return sum(weight.numel() for weight in weights) + int(weights[0].shape[-1]) ** 2


def batches(
    layer: LayerState,
    solver: Solver,
    grids: Mapping[str, Grid],
    global_scales: Mapping[str, Tensor],
) -> list[tuple[str, list[str]]]:
    """Modules that may be stacked: same input, format, global scale and options of the solver, no
    scale across rows; before them a digest of what they have in common.

    A solver that keeps what is there gets every module alone. Some modules of a layer are in the
    same order here as all of them are.
    """
    found: dict[object, list[list[str]]] = {}
    for name, grid in grids.items():
        weight = layer.tensors[f"{name}.weight"]
        shared = grid.strategy in ROW_STRATEGIES and not solver.keeps
        scale = float(global_scales[name]) if name in global_scales else None
        own = solver.of(name)
        options = None if own is solver else own
        key = (layer.statistics.leader(name), grid, scale, weight.dtype, options)
        stacks = found.setdefault(key if shared else name, [[]])
        taken = sum(layer.tensors[f"{other}.weight"].numel() for other in stacks[-1])
        if stacks[-1] and taken + weight.numel() > ELEMENTS_AT_ONCE:
            stacks.append([])
        stacks[-1].append(name)
    return [
        (digest(repr(key)), stack) for key, stacks in found.items() for stack in stacks if stack
    ]


def _solve(
    layer: LayerState,
    by: tuple[Pruner | None, Solver],
    names: list[str],
    grids: Mapping[str, Grid],
    global_scales: Mapping[str, Tensor],
    device: str,
) -> Generator[Solved]:
    first, (pruner, solver) = names[0], by
    stored = stored_of(layer, first) if solver.keeps else None
    if stored is None:
        weights = [layer.tensors[f"{name}.weight"].to(device) for name in names]
    else:
        weights = [stored.weight()]  # before it was rounded to the model's dtype
    try:
        needs_gram = any("gram" in m.statistics() for m in by if m is not None)
        H = gram_of(layer.statistics, first).to(device) if needs_gram else None
        pruned = None if pruner is None else [pruner.prune(w, H) for w in weights]
        problem = Problem(
            weight=_stacked(weights),
            H=H,
            grid=grids[first],
            global_scale=global_scales[first].to(device) if first in global_scales else None,
            stored=stored,
            statistics=_asked(layer, solver, first, device),
            identity=_identity(layer, names, device),
            pruned=None if pruned is None else _stacked(pruned),
        )
        found = _checked(solver.solve(problem), first, foreign=solver.keeps, negates=solver.negates)
        whole = with_codes(found, problem.grid)
        if problem.pruned is not None and bool(whole.weight[problem.pruned == 0].any()):
            raise _bad(first, f"{solver.kind} gave values to entries that were pruned")
    except NumericalError as error:
        if len(names) == 1:
            yield Solved(module=first, trouble=error)
            return
        for name in names:  # one of them may be to blame: each alone, so that the others go on
            yield from _solve(layer, by, [name], grids, global_scales, device)
        return
    start = 0
    dead = 0 if H is None else int((H.diagonal() == 0).sum())
    for name, weight in zip(names, weights, strict=True):
        rows = slice(start, start + weight.shape[0])
        start += weight.shape[0]
        part = _rows(whole, rows, alone=len(names) == 1)
        yield Solved(
            module=name,
            quantized=part,
            relative_error=_relative_error(weight, part, H),
            dead=dead,
        )


def _stacked(weights: Sequence[Tensor]) -> Tensor:
    return weights[0] if len(weights) == 1 else torch.cat(list(weights))


def _identity(layer: LayerState, names: list[str], device: str) -> tuple[str, ...] | None:
    return (*layer.content, device, *names) if layer.content else None


def _asked(layer: LayerState, solver: Solver, module: str, device: str) -> dict[str, Tensor]:
    """What the solver asked for beside the Gram matrix, of the input that `module` sees."""
    found: dict[str, Tensor] = {}
    for kind in sorted(solver.statistics() - {"gram"}):
        read = layer.statistics.named(kind, module)
        if read is None:
            raise NumericalError(
                name=module,
                reason="calibration saw no token at its input",
                remedy="calibrate with more samples, or put the module in scheme.ignore",
            )
        found[kind] = read.to(device)
    return found


def _relative_error(weight: Tensor, found: Quantized, H: Tensor | None) -> float:
    if found.losses is None:
        return relative_error(weight, found.weight, H)
    return ratio(*found.losses.double().sum(dim=0).tolist())


def _checked(found: Quantized, name: str, *, foreign: bool, negates: bool) -> Quantized:
    """`found`, unless something in it must never be written.

    `foreign`: its scales are another writer's, who may use 0 and negative ones (`unusual`).
    `negates`: the solver was asked for scales of either sign.
    """
    scale = found.scale.float()
    if not all_finite(found.weight):
        raise _bad(name, "the quantized weight has non-finite entries")
    accepted = (scale != 0) & (found.scale.dtype in SIGNED) if negates else scale > 0
    if foreign:
        accepted = torch.ones_like(accepted) if found.scale.dtype in SIGNED else scale >= 0
    if not bool((torch.isfinite(scale) & accepted).all()):
        raise _bad(name, "a scale is zero, negative or not finite")
    if found.global_scale is not None and not bool(
        (torch.isfinite(found.global_scale) & (found.global_scale > 0)).all()
    ):
        raise _bad(name, "the global scale is zero, negative or not finite")
    return found


def _bad(name: str, reason: str) -> NumericalError:
    return NumericalError(
        name=name,
        reason=reason,
        remedy="look at the weight in the original checkpoint, or put it in scheme.ignore",
    )


def _rows(whole: Quantized, rows: slice, *, alone: bool) -> Quantized:
    if alone:
        return whole
    zero_point, global_scale = whole.zero_point, whole.global_scale
    return replace(
        whole,
        weight=whole.weight[rows],
        scale=whole.scale[rows],
        codes=None if whole.codes is None else whole.codes[rows],
        original=None,
        losses=None if whole.losses is None else whole.losses[rows],
        zero_point=None if zero_point is None else zero_point[rows],
        # its own copy: a safetensors file takes no tensor twice
        global_scale=None if global_scale is None else global_scale.clone(),
    )
