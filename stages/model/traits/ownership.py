"""Decoder layers that share tensors: each tensor is one layer's, which solves and writes it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from stages.model.blueprint import LinearSpec, Subgraph
from stages.model.traits.linear_use import LinearUse


def owned(
    layers: Sequence[Subgraph], use: LinearUse, made: Mapping[str, object]
) -> tuple[Subgraph, ...]:
    """Layers in which every tensor on disk belongs to one of them.

    A tensor that several layers use (Zamba2's shared transformer) belongs to the first that calls
    its Linear, or else to the first that has it; the others keep it in `tensors`, name it in
    `shared` and have no Linear for it. Parameters in `made` are made of several tensors that save
    copies, so no layer writes them. Linears whose weight is used without a call are marked.
    """
    owners = _owners(layers, use)
    return tuple(_owned(layer, owners, use, made) for layer in layers)


def _owners(layers: Sequence[Subgraph], use: LinearUse) -> dict[str, str]:
    """Tensor on disk -> the layer that it belongs to."""
    owners: dict[str, str] = {}
    for layer in layers:
        for name in use.called.get(layer.name, ()):
            for part in ("weight", "bias"):
                stored = layer.tensors.get(f"{name}.{part}")
                if stored is not None:
                    owners.setdefault(stored, layer.name)
    for layer in layers:
        for stored in layer.tensors.values():
            owners.setdefault(stored, layer.name)
    return owners


def _owned(
    layer: Subgraph,
    owners: Mapping[str, str],
    use: LinearUse,
    made: Mapping[str, object],
) -> Subgraph:
    shared = tuple(
        parameter
        for parameter, stored in layer.tensors.items()
        if owners[stored] != layer.name or parameter in made
    )
    elsewhere = frozenset(shared)

    def stays(linear: LinearSpec) -> bool:
        return f"{linear.name}.weight" not in elsewhere

    linears = (replace(x, bare=True) if x.name in use.bare else x for x in layer.linears)
    return replace(
        layer,
        linears=tuple(linear for linear in linears if stays(linear)),
        fused=tuple(
            group for group in layer.fused if not elsewhere & {f"{n}.weight" for n in group}
        ),
        shared=shared,
    )


def bare_note(layers: Iterable[Subgraph]) -> tuple[str, ...]:
    """A note on the Linears that cannot be compressed because nothing calls them."""
    names = [linear.name for layer in layers for linear in layer.linears if linear.bare]
    patterns = sorted({re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names})
    if not names:
        return ()
    return (
        f"{len(names)} Linears stay dense, since the model uses their weights without calling "
        f"them: {', '.join(patterns)}",
    )
