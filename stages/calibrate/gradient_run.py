"""Backward pass through one decoder layer; diagonal Fisher information of its Linears' outputs.

Rows are independent, so only the graph of one row is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import StageFailed
from pipeline.stage import Task
from stages.calibrate.config import LayerConfig
from stages.calibrate.gradient import FISHER, GRADIENT
from stages.calibrate.layer_replay import Place, filled, place_of
from stages.model.artifact_names import ACTIVATIONS, FISHER_FILE
from stages.model.boundary import Boundary, joined
from stages.model.boundary_activations import Batch, batches, read_activations, write_activations
from stages.model.replay import replay


@dataclass(kw_only=True, slots=True)
class Squares:
    """Hooks that sum g^2 over tokens for each output of `names`; g is the loss's derivative by it.

    `sums`: module -> float64 [out] on the CPU; only modules that a gradient has reached.
    """

    names: Sequence[str]
    sums: dict[str, Tensor] = field(default_factory=dict)

    @contextmanager
    def watching(self, layer: nn.Module, *, prefix: str) -> Iterator[None]:
        """Context in which backward passes through `layer` (modules `prefix`...) are summed."""
        with ExitStack() as stack:
            for name in self.names:
                module = layer.get_submodule(name.removeprefix(prefix))
                stack.callback(module.register_forward_hook(self._hook(name)).remove)
            yield

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def ran(module: nn.Module, args: Any, output: Tensor) -> None:
            del module, args
            if not torch.is_grad_enabled():
                return
            if not output.requires_grad:  # nothing before it needs a gradient: it starts here
                output.requires_grad_()
            output.register_hook(lambda g: self._add(name, g))

        return ran

    def _add(self, name: str, gradient: Tensor) -> None:
        rows = gradient.detach().reshape(-1, gradient.shape[-1]).float()
        squares = rows.square().sum(dim=0, dtype=torch.float64).cpu()
        self.sums[name] = self.sums[name] + squares if name in self.sums else squares


WITHOUT = "say graph=budget_forward, which weighs errors without a backward pass"


def run(config: LayerConfig, task: Task) -> None:
    """Write the outputs of `stages.calibrate.gradient` for the layer `task.member`."""
    config.numerics.apply()
    place = place_of(task, config.numerics.device)
    prefix, layer = f"{place.subgraph.name}.", place.skeleton.layers[place.subgraph.index]
    squares = Squares(names=[linear.name for linear in place.subgraph.linears])
    after = task.inputs.get(GRADIENT) or task.inputs["ending"]
    before, passed_on = task.inputs.get(ACTIVATIONS), task.outputs.get(GRADIENT)
    tokens = 0
    with filled(place, place.source), squares.watching(layer, prefix=prefix):
        for batch in batches(task.inputs["tokens"], config.calibrate.sequences):
            above = read_activations(after, batch, device=place.device)
            given = None
            if before is not None:
                given = read_activations(before, batch, device=place.device)
            with explained(place.subgraph.name):
                below = through(place, batch, given, above)
            if passed_on is not None and below is not None:
                write_activations(passed_on, batch.index, below)
            tokens += int(batch.lengths.sum() if batch.counted is None else batch.counted.sum())
            task.progress((batch.index + 1) / batch.count, f"batch {batch.index + 1}")
    if FISHER in task.outputs:
        means = fisher(place, squares, tokens)
        save_file(means, task.outputs[FISHER].path / FISHER_FILE)
        task.outputs[FISHER].meta["tokens"] = tokens


def through(
    place: Place, batch: Batch, before: Boundary | None, above: Boundary
) -> Boundary | None:
    """Derivatives by what the layer is given, from those by what it hands on (`above`).

    None for the first layer, before which no layer needs them.
    """
    skeleton, rows = place.skeleton, []
    for row in range(len(batch.ids)):
        ids, given = batch.ids[row : row + 1], None
        if before is not None:
            given = before.row(row, batch.ids).on(skeleton.device, skeleton.dtype)
            given = given.mapped(as_leaf)
        output = replay(skeleton, place.subgraph.index, ids, given, gradients=True)
        backward(output, above.row(row, batch.ids))
        if given is not None:
            rows.append(given.mapped(gradient_of))
    return joined(rows, batch.ids) if rows else None


def backward(output: Boundary, above: Boundary) -> None:
    """Run the backward pass from derivatives by each tensor of `output`, where it has any."""
    names = [name for name, tensor in output.tensors.items() if tensor.requires_grad]
    names = [name for name in names if name in above.tensors]
    gradients = [above.tensors[name].to(output.tensors[name]) for name in names]
    torch.autograd.backward([output.tensors[name] for name in names], gradients)


def as_leaf(tensor: Tensor) -> Tensor:
    """A tensor whose gradient is kept, where there can be one."""
    return tensor.detach().requires_grad_() if tensor.is_floating_point() else tensor


def gradient_of(tensor: Tensor) -> Tensor:
    """The gradient of a leaf; zeros where none has reached it."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def fisher(place: Place, squares: Squares, tokens: int) -> dict[str, Tensor]:
    """Module -> float32 [out], mean squares over tokens; zeros for an expert without tokens.

    Raises StageFailed if no derivative reaches a Linear, or if derivatives are not finite.
    """
    means: dict[str, Tensor] = {}
    for linear in place.subgraph.linears:
        total = squares.sums.get(linear.name)
        if total is None and linear.expert:
            total = torch.zeros(linear.out_features, dtype=torch.float64)
        if total is None or not bool(total.isfinite().all()):
            what = "no derivative reaches it" if total is None else "derivatives are not finite"
            raise StageFailed(f"{linear.name}: {what}", remedy=WITHOUT)
        means[linear.name] = (total / max(1, tokens)).float()
    return means


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Context that turns failures of a backward pass into a StageFailed with a remedy."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise StageFailed(f"no backward pass through {where}: {first}", remedy=WITHOUT) from error
