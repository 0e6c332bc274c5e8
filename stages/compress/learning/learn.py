"""Learning the rounding of a block: batches, a schedule, and what held-out sequences keep.

The loss is the squared difference between the block's output and what the original model has there,
token by token in parts of the latter, with inputs of the compressed model, so that a block also
makes up for the ones before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from stages.compress.grid import Quantized
from stages.compress.learning.latent import Latent

LOOKS = 8
"""So often the loss of the held-out sequences is measured while a block learns."""


class Block(Protocol):
    """A block of the model that runs with weights that are put into it."""

    @property
    def sequences(self) -> int:
        """How many sequences of inputs and wanted outputs there are."""
        ...

    def put(self, name: str, weight: Tensor) -> None:
        """Let a module compute with this weight [out, in] from now on."""
        ...

    def loss(self, sequences: Sequence[int]) -> float:
        """Mean squared error of the output over these sequences, as a part of the target's."""
        ...

    def backward(self, sequences: Sequence[int], unit: float) -> None:
        """Run these sequences, and a backward pass from the error of the output over `unit`."""
        ...

    def take_gradient(self, name: str) -> Tensor | None:
        """The loss's derivative by a module's weight, float32 [out, in], which is then forgotten.

        None where no token reached the module.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How long and how fast to learn; rates fall linearly to 0.

    `held_out` is the part of the sequences that nothing is learned from, at least one; 0: none is.
    """

    iterations: int
    rate: float
    scale_rate: float
    batch_size: int
    held_out: float
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Learned:
    """What became of a block: loss of the start and of what was kept, and when it was.

    The loss is that of the held-out sequences, or of all where none is held out.

    `kept` is the iteration after which it was, 0 for the start; `modules` is empty then.
    """

    before: float
    after: float
    kept: int
    iterations: int
    modules: Mapping[str, Quantized]


def split(count: int, schedule: Schedule) -> tuple[list[int], list[int]]:
    """Numbers of the sequences to learn from, and of those held out; the same for every block."""
    draw = torch.Generator().manual_seed(schedule.seed)
    order = torch.randperm(count, generator=draw).tolist()
    held = max(1, round(count * schedule.held_out)) if schedule.held_out else 0
    return sorted(order[held:]), sorted(order[:held])


def batches(sequences: Sequence[int], schedule: Schedule) -> Iterator[list[int]]:
    """Batches without end: every sequence once, in another order each time."""
    draw = torch.Generator().manual_seed(schedule.seed + 1)
    waiting: list[int] = []
    while True:
        while len(waiting) < schedule.batch_size:
            order = torch.randperm(len(sequences), generator=draw).tolist()
            waiting += [sequences[i] for i in order]
        yield waiting[: schedule.batch_size]
        del waiting[: schedule.batch_size]


def learn(
    block: Block,
    latents: Mapping[str, Latent],
    schedule: Schedule,
    progress: Callable[[float], None],
) -> Learned:
    """Learn all weights of a block together; `latents` by module, which are changed.

    What is kept is the best by the loss of the held-out sequences, of which the start is one: it is
    never worse there. Where none is held out, it is the last, if it is better than the start on the
    sequences that it learned from. The same seed gives the same result.
    """
    training, held = split(block.sequences, schedule)
    for name, latent in latents.items():
        block.put(name, latent.weight())
    watched = held or training
    before = best = block.loss(watched)
    kept, modules, unit = 0, dict[str, Quantized](), before**0.5
    every = max(1, schedule.iterations // LOOKS if held else schedule.iterations)
    done = 0
    for batch in batches(training, schedule):
        if done == schedule.iterations or before == 0:
            break
        block.backward(batch, unit)
        left = 1 - done / schedule.iterations
        done += 1
        for name, latent in latents.items():
            gradient = block.take_gradient(name)
            if gradient is None:
                continue
            rate, scale_rate = schedule.rate * left, schedule.scale_rate * left
            latent.step(gradient, rate=rate, scale_rate=scale_rate)
            block.put(name, latent.weight())
        if done % every == 0 or done == schedule.iterations:
            now = block.loss(watched)
            if now < best:
                best, kept = now, done
                modules = {name: latent.chosen() for name, latent in latents.items()}
        progress(done / schedule.iterations)
    return Learned(before=before, after=best, kept=kept, iterations=done, modules=modules)
