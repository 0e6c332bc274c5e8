"""A decoder layer that learns: replayed with learned weights, its output held against a target.

Inputs are what the compressed layers before it hand on; the target is what the original layer gives
in the original model. Both lie in boundary activations, of which a batch is read at a time.

The loss is the mean over tokens of |y - t|^2 / |t|^2, y the output and t the target: models write
states a thousand times as long as others for a few tokens (arXiv:2402.17762), whose plain squares
would be all that is seen, while the next norm makes all tokens equally long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.errors import StageFailed
from pipeline.stage import Artifact, Task
from stages.compress.layer.running import materialized_layer
from stages.compress.layer.state import LayerState
from stages.fake_quant.activations import simulated_inputs
from stages.formats.input_params import InputRule
from stages.model.artifact_names import ACTIVATIONS
from stages.model.boundary import Boundary, batch_dim, joined
from stages.model.boundary_activations import Batch, batches, read_activations
from stages.model.replay import replay
from stages.model.skeleton import Skeleton, kept_skeleton
from stages.weights import WeightSource

TARGET = "target"
"""The input under which `compress` takes the activations of the original model."""
SHORT = 0.01
"""Part of the median square of tokens below which a token counts for no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Activations:
    """What a layer is run on: token rows, activations before it, and the wanted ones after it.

    before: None for the first layer. size: sequences in a file of activations.
    """

    skeleton: Skeleton
    source: WeightSource
    index: int
    rows: Sequence[Batch]
    size: int
    before: Artifact | None
    target: Artifact

    @classmethod
    def of(cls, task: Task, source: WeightSource, device: str) -> Activations:
        """Those of the layer of `task`; the skeleton is kept for the worker's next task."""
        target, index = task.inputs[TARGET], task.index or 0
        before = task.inputs.get(ACTIVATIONS)
        if before is None and index:
            raise StageFailed(
                f"nothing hands the layer {task.member} the activations before it",
                remedy=f"give node compress the input `{ACTIVATIONS}: propagate@previous`, as "
                "conf/graph/calibrated.yaml does",
            )
        size = int(target.meta["batch_size"])
        return cls(
            skeleton=kept_skeleton(task, device),
            source=source,
            index=index,
            rows=tuple(batches(task.inputs["tokens"], size)),
            size=size,
            before=before,
            target=target,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A batch of sequences: ids [b, T]; the target, and which of its entries count (None: all)."""

    ids: Tensor
    before: Boundary | None
    target: Tensor
    counted: Tensor | None

    def error(self, output: Tensor) -> Tensor:
        """Output minus target in float32, zero where it does not count; the shape of `output`."""
        error = output.detach().float() - self.target.float()
        if self.counted is not None:
            error *= self.counted
        return error

    def weights(self) -> Tensor:
        """What the squares of each token count: float32, the target's shape but for a last 1."""
        return token_weights(self.target)

    @property
    def entries(self) -> float:
        """How many entries count."""
        if self.counted is None:
            return float(self.target.numel())
        return float(self.counted.expand(self.target.shape).sum(dtype=torch.float64))


def token_weights(target: Tensor) -> Tensor:
    """One over the mean square of each token of `target` [..., hidden]: float32 [..., 1].

    A token far shorter than the median of all counts no more than if it had `SHORT` of that.
    """
    squares = target.float().square().mean(dim=-1, keepdim=True)
    least = max(SHORT * float(squares.median()), torch.finfo(torch.float32).tiny)
    return squares.clamp_min_(least).reciprocal_()


@dataclass(kw_only=True, slots=True)
class ReplayedBlock:
    """The protocol `stages.compress.learning.learn.Block`, for a layer within `opened`."""

    activations: Activations
    weights: dict[str, nn.Parameter]

    @property
    def sequences(self) -> int:
        return sum(len(batch.ids) for batch in self.activations.rows)

    def put(self, name: str, weight: Tensor) -> None:
        self.weights[name].data.copy_(weight)

    def loss(self, sequences: Sequence[int]) -> float:
        squares = entries = 0.0
        for number in sequences:
            sample = self.sample([number])
            error = sample.error(self._run(sample, gradients=False))
            squares += float(error.square_().mul_(sample.weights()).sum(dtype=torch.float64))
            entries += sample.entries
        return squares / max(1.0, entries)

    def backward(self, sequences: Sequence[int], unit: float) -> None:
        sample = self.sample(sequences)
        output = self._run(sample, gradients=True)
        if output.requires_grad:  # not where the batch reaches no learned weight
            error = sample.error(output).mul_(sample.weights()).div_(unit)
            torch.autograd.backward([output], [error.to(output.dtype)])

    def take_gradient(self, name: str) -> Tensor | None:
        weight = self.weights[name]
        found, weight.grad = weight.grad, None
        return None if found is None else found.float()

    def _run(self, sample: Sample, *, gradients: bool) -> Tensor:
        given = self.activations
        output = replay(given.skeleton, given.index, sample.ids, sample.before, gradients=gradients)
        return output.hidden

    def sample(self, sequences: Sequence[int]) -> Sample:
        """Some sequences, by their numbers, on the device of the skeleton."""
        given, device = self.activations, str(self.activations.skeleton.device)
        ids, marks, befores, targets = [], [], [], []
        read: dict[int, tuple[Boundary | None, Boundary]] = {}
        for number in sequences:
            file, row = divmod(number, given.size)
            batch = given.rows[file]
            if file not in read:
                before = given.before
                read[file] = (
                    None if before is None else read_activations(before, batch, device=device),
                    read_activations(given.target, batch, device=device),
                )
            before_batch, target_batch = read[file]
            ids.append(batch.ids[row])
            counted = batch.counted
            marks.append(
                torch.ones_like(ids[-1], dtype=torch.bool) if counted is None else counted[row]
            )
            if before_batch is not None:
                befores.append(before_batch.row(row, batch.ids))
            targets.append(target_batch.row(row, batch.ids))
        tokens = torch.stack(ids)
        target = joined(targets, tokens).hidden
        return Sample(
            ids=tokens,
            before=joined(befores, tokens) if befores else None,
            target=target,
            counted=_mask(torch.stack(marks), target),
        )


def _mask(counted: Tensor, target: Tensor) -> Tensor | None:
    """`counted` [b, T] in the dimensions of `target`; None where all counts."""
    if bool(counted.all()):
        return None
    counted = counted.to(target.device)
    if target.shape[0] == counted.numel() != counted.shape[0]:  # tokens in one dimension
        return counted.reshape(-1, *[1] * (target.dim() - 1))
    dim = batch_dim(target.shape, counted.shape)
    if dim is None:
        return None
    return counted.reshape(*[1] * dim, *counted.shape, *[1] * (target.dim() - dim - 2))


@contextmanager
def opened(
    activations: Activations,
    layer: LayerState,
    names: Sequence[str],
    rules: Mapping[str, InputRule],
) -> Iterator[ReplayedBlock]:
    """Context in which the layer runs with learnable weights in the modules `names`.

    All else of it is as `layer` holds it, after transforms; `rules` quantize inputs of modules,
    straight through in a backward pass.
    """
    bones = activations.skeleton
    source = activations.source
    with ExitStack() as stack:
        stack.enter_context(materialized_layer(bones, activations.index, layer, source))
        stack.enter_context(simulated_inputs(bones.model, rules, straight_through=True))
        if bones.device.type == "cuda":
            stack.enter_context(deterministic())
        weights = {}
        for name in names:
            weight = bones.model.get_submodule(name).get_parameter("weight")
            # a tensor of its own: the layer's may be one that it was read from
            weights[name] = weight
            weight.data = weight.data.clone()
            weight.requires_grad_()
        yield ReplayedBlock(activations=activations, weights=weights)


@contextmanager
def deterministic() -> Iterator[None]:
    """Context in which torch takes kernels that add in a fixed order, where it has them."""
    before = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)
