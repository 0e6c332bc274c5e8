"""A replayed block that learns: its loss and gradients, with experts and several tensors passed on.

The original chain's own activations are given as inputs and as targets, so that the loss of the
original weights is 0, and its derivative is that of differences of losses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stages.compress.learning.block import Activations, ReplayedBlock, opened, token_weights
from stages.model.boundary import Boundary
from stages.model.boundary_activations import Batch, write_activations
from stages.model.layer_tensors import layer_tensors, outside_tensors
from stages.model.replay import replay, stem_names
from tests.stages.calibrate.fakes import FakeArtifact, folder
from tests.stages.compress.bare_layer import bare_layer
from tests.stages.model.tiny import Tiny, tiny

SIZE, WIDTH = 2, 12
IDS = torch.randint(3, 96, (2 * SIZE, WIDTH), generator=torch.Generator().manual_seed(1))
ROWS = tuple(
    Batch(index=i, count=2, ids=IDS[SIZE * i :][:SIZE], lengths=torch.full((SIZE,), WIDTH))
    for i in range(2)
)
EVERY = list(range(2 * SIZE))


def chain(model: Tiny, index: int, root: Path) -> list[FakeArtifact]:
    """What the layers up to `index` hand on, as `reference` stores it."""
    bones, found = model.skeleton(), []
    before: list[Boundary | None] = [None] * len(ROWS)
    for k in range(index + 1):
        tensors = layer_tensors(bones.blueprint.layers[k], model.source)
        tensors |= outside_tensors(bones.blueprint, stem_names(bones, k), model.source)
        artifact = folder(root / str(k))
        artifact.meta = {"batch_size": SIZE}
        with bones.materialized(tensors):
            for batch in ROWS:
                after = replay(bones, k, batch.ids, before[batch.index])
                before[batch.index] = after
                write_activations(artifact, batch.index, after)
        found.append(artifact)
    return found


@contextmanager
def block(family: str, index: int, root: Path) -> Iterator[tuple[ReplayedBlock, dict[str, Tensor]]]:
    """Layer `index` of a tiny model with all its Linears learnable, and their weights."""
    model = tiny(family, root / "model")
    artifacts = chain(model, index, root)
    bones = model.skeleton()
    subgraph = bones.blueprint.layers[index]
    layer = bare_layer(model, subgraph)
    given = Activations(
        skeleton=bones,
        source=model.source,
        index=index,
        rows=ROWS,
        size=SIZE,
        before=artifacts[index - 1],
        target=artifacts[index],
    )
    names = [linear.name for linear in subgraph.linears]
    with opened(given, layer, names, {}) as found:
        yield found, {name: layer.peek(f"{name}.weight") for name in names}


@pytest.mark.parametrize(
    ("family", "index"),
    [
        ("mixtral", 1),
        ("gemma3n_text", 3),
        pytest.param("gemma4_text", 2, marks=pytest.mark.slow),
        pytest.param("qwen3_moe", 1, marks=pytest.mark.slow),
    ],
)
def test_gradients_are_those_of_the_loss(family: str, index: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    with block(family, index, tmp_path) as (found, weights):
        assert found.sequences == len(EVERY)
        assert found.loss(EVERY) < 1e-10  # sequences by themselves, the target in batches
        moved = {name: w + 0.05 * w.std() * torch.randn_like(w) for name, w in weights.items()}
        for name, weight in moved.items():
            found.put(name, weight)
        batch = [0, 3]  # of two files
        found.backward(batch, 1.0)
        entries = len(batch) * found.sample(batch).target[0].numel()
        if family == "gemma3n_text":  # several states side by side: [4, b, T, hidden]
            entries = found.sample(batch).target.numel()
        slope, checked = 0.0, 0
        direction = {}
        for name, weight in moved.items():
            gradient = found.take_gradient(name)
            assert found.take_gradient(name) is None
            if gradient is None:
                continue  # an expert without tokens
            assert gradient.dtype == torch.float32 and gradient.shape == weight.shape
            direction[name] = gradient / gradient.norm()
            slope += float((gradient * direction[name]).sum())
            checked += 1
        assert checked >= 4
        losses = []
        for step in (0.002, -0.002):
            for name, way in direction.items():
                found.put(name, moved[name] + step * way)
            losses.append(found.loss(batch))
        # backward's is of half the sum of squares
        assert 2 * slope / entries == pytest.approx((losses[0] - losses[1]) / 0.004, rel=0.02)


def test_a_token_counts_in_parts_of_its_own_length() -> None:
    target = torch.ones(2, 5, 8)
    target[0, 0] *= 1000
    target[1, 1] *= 1e-6
    target[1, 2] = 0
    weights = token_weights(target)
    assert weights.shape == (2, 5, 1)
    assert weights[0, 0].item() == pytest.approx(1e-6)
    assert weights[0, 1].item() == 1
    assert weights[1, 1].item() == weights[1, 2].item() == pytest.approx(100)
    assert torch.isfinite(token_weights(torch.zeros(1, 3, 4))).all()
