"""A layer of a tiny model that runs in two models: the original, and one changed in a layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stages.compress.aimed.chains import Chains, Inputs, opened
from stages.compress.layer.state import LayerState
from stages.formats.input_params import InputRule
from stages.model.blueprint import Subgraph
from stages.model.boundary import Boundary
from stages.model.boundary_activations import Batch, write_activations
from stages.model.layer_tensors import layer_tensors, outside_tensors
from stages.model.replay import replay, stem_names
from tests.stages.calibrate.fakes import FakeArtifact, folder
from tests.stages.compress.bare_layer import bare_layer
from tests.stages.model.tiny import Tiny, tiny

SIZE, WIDTH = 2, 12
IDS = torch.randint(3, 96, (2 * SIZE, WIDTH), generator=torch.Generator().manual_seed(1))


def rows(lengths: Tensor | None = None) -> tuple[Batch, ...]:
    lengths = torch.full((2 * SIZE,), WIDTH) if lengths is None else lengths
    return tuple(
        Batch(index=i, count=2, ids=IDS[i * SIZE :][:SIZE], lengths=lengths[i * SIZE :][:SIZE])
        for i in range(2)
    )


def changed(tensors: Mapping[str, Tensor], names: set[str]) -> dict[str, Tensor]:
    """The tensors with noise on some."""
    draw = torch.Generator().manual_seed(2)
    return {
        name: t + 0.2 * t.std() * torch.randn(t.shape, generator=draw) if name in names else t
        for name, t in tensors.items()
    }


def handed_on(
    model: Tiny, index: int, root: Path, batches: tuple[Batch, ...], noisy: bool
) -> FakeArtifact:
    """What the layers before `index` hand on; with `noisy` Linears of the first one if wanted."""
    bones = model.skeleton()
    before: list[Boundary | None] = [None] * len(batches)
    artifact = folder(root)
    artifact.meta = {"batch_size": SIZE}
    for k in range(index):
        subgraph = bones.blueprint.layers[k]
        tensors = layer_tensors(subgraph, model.source)
        if noisy and k == 0:
            tensors = changed(tensors, {f"{one.name}.weight" for one in subgraph.linears})
        tensors |= outside_tensors(bones.blueprint, stem_names(bones, k), model.source)
        with bones.materialized(tensors):
            for batch in batches:
                before[batch.index] = replay(bones, k, batch.ids, before[batch.index])
    for batch in batches:
        boundary = before[batch.index]
        assert boundary is not None
        write_activations(artifact, batch.index, boundary)
    return artifact


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A layer that can be run, with all that was made for it."""

    model: Tiny
    layer: LayerState
    chains: Chains
    names: tuple[str, ...]

    def weights(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        return {name: self.layer.peek(f"{name}.weight").float() for name in names}

    @property
    def subgraph(self) -> Subgraph:
        return self.layer.subgraph


@contextmanager
def layer_in_two_models(
    family: str,
    index: int,
    root: Path,
    *,
    lengths: Tensor | None = None,
    rules: Mapping[str, InputRule] | None = None,
) -> Iterator[Opened]:
    """Layer `index` (1 or more) of a tiny model behind a first layer with noise, and without."""
    model, batches = tiny(family, root / "model"), rows(lengths)
    bones = model.skeleton()
    subgraph = bones.blueprint.layers[index]
    layer = bare_layer(model, subgraph)
    given = Inputs(
        skeleton=bones,
        source=model.source,
        index=index,
        rows=batches,
        before=handed_on(model, index, root / "present", batches, noisy=True),
        original=handed_on(model, index, root / "original", batches, noisy=False),
    )
    names = tuple(linear.name for linear in subgraph.linears if not linear.expert)
    with opened(given, layer, names, rules or {}) as chains:
        yield Opened(model=model, layer=layer, chains=chains, names=names)
