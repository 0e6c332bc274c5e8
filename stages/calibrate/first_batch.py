"""Check of replay on the model itself: its own config, weights, dtype, device and first tokens.

The proof on a shrunken instance (:mod:`stages.model.proofs.replay_proof`) cannot see what only the
real config brings about: true widths and windows, a half-precision dtype, the kernels of a GPU.
So the first layer of each type that has another before it is run twice on the first sequence: from
the boundary that the layer before hands on, and in one forward with that layer, where nothing is
handed on but by the model itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.errors import StageFailed
from pipeline.stage import Task
from stages.calibrate.batch_size import capacity
from stages.calibrate.layer_replay import Place
from stages.compute.estimates import PASSED_SHARE
from stages.model.artifact_names import ACTIVATIONS
from stages.model.boundary import EMBEDDING, Boundary
from stages.model.boundary_activations import batches, read_activations
from stages.model.layer_tensors import layer_tensors
from stages.model.layer_types import firsts_after_another
from stages.model.replay import replay, replay_two

EPSILONS = 4
"""Relative error of a token, in units of the dtype, up to which values count as equal."""
LEAST = 1e-5
"""The same for wide dtypes: kernels of a GPU may add in any order."""
CHECKED = "checked"
"""Key of a skeleton's memo: indices of the layers that are checked."""
FEW = 0.02
"""Share of tokens that may differ: rounding sends a few of them to other experts."""


def check_first_batch(task: Task, place: Place, batch_size: int) -> None:
    """Raise StageFailed where replay of the next layer differs from a forward through both.

    Layer `task.member` must be `filled`. Nothing is done unless the next layer is the first of its
    type with another before it; a warning tells where both do not fit.
    """
    bones, index = place.skeleton, place.subgraph.index
    if CHECKED not in bones.memo:
        bones.memo[CHECKED] = firsts_after_another(place.blueprint)
    if index + 1 not in bones.memo[CHECKED]:
        return
    following = place.blueprint.layers[index + 1]
    size = bones.dtype.itemsize * (place.subgraph.parameters + following.parameters)
    if size > capacity(place.device) // PASSED_SHARE:
        task.warn(
            f"replay of {following.name} is proven on a small random model only: it takes "
            f"{size / 1e9:.1f} GB to run it together with the layer before it"
        )
        return
    batch = next(iter(batches(task.inputs["tokens"], batch_size)))
    ids, before = batch.ids[:1], None
    if ACTIVATIONS in task.inputs:
        given = read_activations(task.inputs[ACTIVATIONS], batch, device=place.device)
        before = given.row(0, batch.ids)
    tensors = layer_tensors(following, place.source, device=place.device)
    with bones.materialized(tensors):
        handed = Boundary.from_stored(replay(bones, index, ids, _copy(before)).stored())
        found = replay(bones, index + 1, ids, _copy(handed))
        wanted = replay_two(bones, index, ids, _copy(before))
    differing = difference(found, wanted, bones.dtype)
    if differing:
        raise StageFailed(
            f"{following.name} cannot be run from what {place.subgraph.name} hands on: on the "
            f"first calibration tokens it gives other values than in one forward ({differing})",
            remedy="graph=data_free compresses the model without running it; report the "
            "architecture with its config.json",
        )


def difference(found: Boundary, wanted: Boundary, dtype: torch.dtype) -> str:
    """How what a layer hands on differs by more than rounding, in words; "" if it does not."""
    most = max(EPSILONS * torch.finfo(dtype).eps, LEAST)
    for name, mine in found.tensors.items():
        if name == EMBEDDING:
            continue
        other = wanted.tensors.get(name)
        if other is None or other.shape != mine.shape:
            return f"{name} has another shape"
        far = _errors(mine, other) > most
        if bool(far.float().mean() > FEW):
            return f"{int(far.sum())} of {far.numel()} vectors of {name}"
    return ""


def _errors(found: Tensor, wanted: Tensor) -> Tensor:
    """Relative error of every vector along the last dimension, in float64."""
    if not found.dim() or not found.numel():
        return torch.zeros(1)
    a, b = (t.double().nan_to_num().reshape(-1, t.shape[-1]) for t in (found, wanted))
    far: Tensor = torch.linalg.vector_norm(a - b, dim=-1)
    size: Tensor = torch.linalg.vector_norm(b, dim=-1)
    return far / size.clamp_min(torch.finfo(torch.float32).tiny)


def _copy(boundary: Boundary | None) -> Boundary | None:
    """Layers may write into what they are given."""
    return None if boundary is None else boundary.mapped(torch.clone)
