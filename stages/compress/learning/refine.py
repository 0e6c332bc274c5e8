"""From solved modules of a layer to learned ones: latents, the replayed block, what is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from stages.compress.grid import Grid
from stages.compress.layer.state import LayerState
from stages.compress.learning.block import Activations, opened
from stages.compress.learning.latent import Latent
from stages.compress.learning.learn import Learned, Schedule, learn
from stages.compress.modifiers.autoround import AutoRound
from stages.compress.solve import Solved
from stages.compress.solvers.output_error import relative_error
from stages.formats.input_params import InputRule


def refined(
    layer: LayerState,
    solver: AutoRound,
    solved: Sequence[Solved],
    grids: Mapping[str, Grid],
    rules: Mapping[str, InputRule],
    activations: Activations,
    gram: Callable[[str], Tensor],
    *,
    device: str,
    progress: Callable[[float], None],
) -> tuple[list[Solved], Learned | None]:
    """The solved modules of a layer once they have learned together; None if there is none.

    gram: the Gram matrix of a module's inputs, by its name.
    Modules with trouble stay as they are, and run with the weights that the layer has.
    """
    latents = {
        one.module: Latent.start(
            layer.peek(f"{one.module}.weight").to(device),
            one.quantized,
            grids[one.module],
            reach=solver.reach,
        )
        for one in solved
        if one.quantized is not None
    }
    if not latents:
        return list(solved), None
    with opened(activations, layer, tuple(latents), rules) as block:
        learned = learn(block, latents, schedule_of(solver), progress)
    found = []
    for one in solved:
        if one.module in learned.modules:
            quantized = learned.modules[one.module]
            error = relative_error(
                layer.peek(f"{one.module}.weight").to(device),
                quantized.weight,
                gram(one.module).to(device),
            )
            one = replace(one, quantized=quantized, relative_error=error)
        found.append(one)
    return found, learned


def schedule_of(solver: AutoRound) -> Schedule:
    """The options of a solver that say how it learns."""
    return Schedule(
        iterations=solver.iterations,
        rate=solver.rate,
        scale_rate=solver.scale_lr,
        batch_size=solver.batch_size,
        held_out=solver.held_out,
        seed=solver.seed,
    )
