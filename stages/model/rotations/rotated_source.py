"""Weight source whose tensors are rotated as they are read, norms folded into what reads them.

Every tensor is computed in float64 on the CPU, whoever reads it, and rounded once to its dtype: all
readers see the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from stages.compute.rotation import Rotation, RotationSpec
from stages.compute.rotation_steps import RotatedTensors, Step
from stages.weights.source import TensorSpec, WeightSource
from stages.weights.writer import bytes_of, pieces

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 1 << 22
"""So many entries are in float64 at a time, where rows are changed each alone."""


class RotatedSource:
    """A `WeightSource` over `source` whose tensors are changed as they are read.

    `source` has the aliases too.
    """

    def __init__(self, source: WeightSource, rotated: RotatedTensors) -> None:
        self.source = source
        self._steps = rotated.steps
        self._specs = rotated.rotations
        self._made: dict[RotationSpec, Rotation] = {}
        self._threads = rotated.threads

    def specs(self) -> Mapping[str, TensorSpec]:
        return self.source.specs()

    def pieces(self, name: str) -> Iterator[memoryview]:
        """The bytes of a tensor in order; each piece is valid until the next one is requested."""
        if name not in self._steps:
            yield from pieces(self.source, name)
            return
        yield bytes_of(self.read([name])[name])

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        import torch

        wanted = list(names)
        plain = [name for name in wanted if name not in self._steps]
        found = self.source.read(plain, device=device) if plain else {}
        changed = [name for name in wanted if name in self._steps]
        if changed:
            torch.set_num_threads(self._threads)  # of this thread: it decides the order of sums
            steps = [step for name in changed for step in self._steps[name]]
            norms = dict.fromkeys(name for s in steps for name in (s.multiply, s.divide) if name)
            factors = {name: norm.double() for name, norm in self.source.read(norms).items()}
            for name in changed:
                tensor = self.source.read([name])[name]
                found[name] = self._changed(name, tensor, factors).to(device)
        return {name: found[name] for name in wanted}

    def _changed(self, name: str, tensor: Tensor, factors: Mapping[str, Tensor]) -> Tensor:
        import torch

        steps = self._steps[name]
        if tensor.dim() != 2 or any(step.dim == 0 for step in steps):
            return self._apply(name, tensor.double(), steps, factors).to(tensor.dtype)
        new = torch.empty_like(tensor)
        rows = max(1, ROWS // tensor.shape[1])
        for start in range(0, len(tensor), rows):
            part = tensor[start : start + rows].double()
            new[start : start + rows] = self._apply(name, part, steps, factors).to(tensor.dtype)
        return new

    def _apply(
        self, name: str, tensor: Tensor, steps: Iterable[Step], factors: Mapping[str, Tensor]
    ) -> Tensor:
        for step in steps:
            if step.fill is not None:
                tensor = tensor.new_full(tensor.shape, step.fill)
            if step.multiply:
                tensor = tensor * (factors[step.multiply] + step.offset)
            if step.divide:
                tensor = _divided(name, tensor, factors[step.divide] + step.offset)
            if step.rotate:
                rotation = self.rotation(self._specs[step.rotate])
                along = tensor.movedim(step.dim, -1).contiguous()
                tensor = _turned(rotation, along, step).movedim(-1, step.dim).contiguous()
        return tensor

    def rotated_gram(self, name: str, gram: Tensor) -> Tensor:
        """X'^T X' from X^T X [in, in]: inputs of the Linear whose weight is the tensor `name`.

        What is done to the columns of the weight is undone in its inputs: they are divided by a
        norm's weight and rotated, x' = (x / w) Q. In float64, rounded to `gram`'s dtype once.
        Inputs that w = 0 hides are not known: they are taken for uncorrelated with the others, and
        for as large as those are on average.
        """
        import torch

        found = gram.double()
        for step in self._steps.get(name, ()):
            if step.multiply:
                norm = self.source.read([step.multiply])[step.multiply].to(found) + step.offset
                hidden = norm == 0
                divided = torch.where(hidden, 0.0, 1.0 / torch.where(hidden, 1.0, norm))
                found = found * divided * divided[:, None]
                mean = found.diagonal().sum() / (~hidden).sum().clamp(min=1)
                found.diagonal()[hidden] = mean
            if step.rotate and step.dim == -1:
                rotation = self.rotation(self._specs[step.rotate])
                found = rotation.apply(rotation.apply(found).T.contiguous())
        return ((found + found.T) / 2).to(gram.dtype)

    def rotation(self, spec: RotationSpec) -> Rotation:
        """The matrix of a spec, made once."""
        if spec not in self._made:
            self._made[spec] = Rotation(spec)
        return self._made[spec]


def _turned(rotation: Rotation, x: Tensor, step: Step) -> Tensor:
    """The channels of the last dimension rotated, or some of each period of them."""
    import torch

    if not step.period:
        return rotation.apply(x)
    runs = x.unflatten(-1, (-1, step.period))
    rest, some = runs[..., : step.start], runs[..., step.start :].contiguous()
    return torch.cat((rest.double(), rotation.apply(some)), dim=-1).flatten(-2)


def _divided(name: str, bias: Tensor, weight: Tensor) -> Tensor:
    """A norm's bias as it is before the norm's weight; UserError where that weight is 0."""
    import torch

    if bool(((weight == 0) & (bias != 0)).any()):
        raise UserError(
            f"{name} adds to a channel that its norm's weight makes 0: it cannot be rotated",
            remedy="leave R1 out of the rotations",
        )
    return torch.where(weight == 0, bias, bias / torch.where(weight == 0, 1.0, weight))
