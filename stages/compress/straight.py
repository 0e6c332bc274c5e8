"""A layer that only rounds, from file to file, with nothing imported that it does not need.

compressed-tensors, which brings all of transformers, takes longer to import than such a layer takes
to be written: the runner imports it beside these nodes, for those that come after.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline.stage import Task
from stages.compress.direct import announced, record_direct, solve_to_file
from stages.compress.modifiers.base import Modifier, Solver
from stages.compress.modifiers.rtn import Rtn, only_rounds
from stages.compress.reading import layer_state, recipe_of
from stages.compress.result import Compressed
from stages.compress.solvers.direct import direct
from stages.compress.state import LayerState
from stages.compute.row_tiles import shared_tile_pool
from stages.formats.layer_artifact import SHARD
from stages.schemes.layouts import goes_straight, layout_of
from stages.weights.placed import MisfitError, PlacedFile

if TYPE_CHECKING:
    from stages.compress.stage import CompressConfig
    from stages.schemes.scheme import SchemeConfig


def warm_up(scheme: SchemeConfig) -> None:
    """Round a weight of one group of each format: the first use of a compiled loop is slow."""
    for group in scheme.formats():
        if group.weights is not None and goes_straight(group, (1, group.weights.group_size or 32)):
            weight = torch.ones(1, group.weights.group_size or 32, dtype=torch.bfloat16)
            direct(weight, group.weights, layout_of(group))


def straight(config: CompressConfig, task: Task) -> bool:
    """Compress the layer `task.member` module by module; False, and nothing done, if it cannot."""
    modifiers: tuple[Modifier, ...] = config.modifiers
    if not only_rounds(modifiers, config.numerics.device):
        return False
    solver = next((m for m in modifiers if isinstance(m, Solver)), Rtn())
    config.numerics.apply()
    layer, draft = layer_state(config, task), task.outputs["weights"]
    made = rounded(layer, solver, draft.path / SHARD, task.progress)
    if made is None:
        return False
    made.write(draft, layer.dtype)
    draft.meta["recipe"] = recipe_of(config, {})
    return True


def rounded(
    layer: LayerState, solver: Solver, path: Path, progress: Callable[[float, str], None]
) -> Compressed | None:
    """The layer in the file `path`, each module written as soon as it is rounded.

    None if one of them needs more than :func:`solve_to_file` does; the file is no whole one then.
    """
    specs = announced(layer)
    if specs is None:
        return None
    made, linears = Compressed(), {linear.name: linear for linear in layer.subgraph.linears}
    try:
        with shared_tile_pool(), PlacedFile(path, specs) as file:
            made.tensors = file
            for name, found in solve_to_file(layer, file):
                scheme = layer.resolved[name].scheme
                record_direct(made, linears[name], scheme, found, solver=solver.kind)
                progress(len(made.modules) / len(layer.resolved), f"{solver.kind} {name}")
            if len(made.modules) < len(layer.resolved):
                raise MisfitError("a weight is not finite")
            made.finish(layer, {})
    except MisfitError:
        return None
    return made
