"""Trial of rotations on a shrunken model in float64: how far they change its logits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stages.compute.rotation import RANDOM
from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_class import blueprint_of
from stages.model.rotations.double import Double
from stages.model.rotations.options import RotationOptions
from stages.model.rotations.plan import rotation_plan
from stages.model.rotations.proven import ProvenRotations
from stages.model.rotations.rotated_source import RotatedSource
from stages.model.shrunken import Shrunken, randomize
from stages.model.skeleton import Skeleton, skeleton
from stages.weights.aliased_source import Aliased
from stages.weights.source import TensorSpec

SEED = 0
CLOSE = 1e-9
"""Largest difference of logits in float64, relative to the largest logit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """The shrunken instance in float64, its tensors by name on disk, and its logits."""

    bones: Skeleton
    ids: Tensor
    tensors: Mapping[str, Tensor]
    logits: Tensor

    def difference(self, proven: ProvenRotations, *rotations: str) -> float:
        """How far the logits of the rotated model are from these, relative to the largest."""
        options = RotationOptions(rotations=rotations, type=RANDOM, block=None, seed=SEED)
        threads = torch.get_num_threads()
        plan = rotation_plan(self.bones.blueprint, proven, options, threads=threads)
        source = RotatedSource(Aliased(Held(self.tensors), plan.aliases), plan)
        rotated = source.read([*self.tensors, *plan.aliases])
        blueprint = self.bones.blueprint.untied() if plan.aliases else self.bones.blueprint
        tensors = {n: rotated[stored] for n, stored in parameters_of(blueprint).items()}
        logits = logits_of(self.bones, tensors, self.ids)
        largest = float(self.logits.abs().max())
        return float((logits - self.logits).abs().max()) / largest


def trial_of(small: Shrunken) -> Trial:
    """The shrunken instance with random weights, and what it computes."""
    blueprint = replace(blueprint_of(small.config), dtype="float32")
    bones = skeleton(blueprint)
    randomize(bones.model, SEED)
    bones.model.double()
    state, named = bones.model.state_dict(), parameters_of(blueprint)
    tensors = {stored: state[name].clone() for name, stored in named.items()}
    logits = logits_of(bones, {n: tensors[stored] for n, stored in named.items()}, small.input_ids)
    return Trial(bones=bones, ids=small.input_ids, tensors=tensors, logits=logits)


def logits_of(bones: Skeleton, tensors: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    """The logits with these parameters and buffers, by their names in the module tree."""
    with bones.materialized(tensors), torch.no_grad(), Double():
        logits: Tensor = bones.model(input_ids=ids, use_cache=False).logits
    return logits.double()


def parameters_of(blueprint: Blueprint) -> dict[str, str]:
    """Parameters and buffers of the whole model -> names on disk."""
    named = dict(blueprint.outside)
    for layer in blueprint.layers:
        named |= layer.tensors
    return named


def unequal(difference: float) -> str:
    """What a difference of logits beyond CLOSE says."""
    return (
        "a small random model of its class computes something else once it is rotated "
        f"(by {difference:.1e} of its largest logit)"
    )


class Held:
    """A weight source over tensors in memory."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def specs(self) -> Mapping[str, TensorSpec]:
        return {
            name: TensorSpec(name=name, shape=tuple(tensor.shape), dtype="F64")
            for name, tensor in self._tensors.items()
        }

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        return {name: self._tensors[name].to(device) for name in names}
