"""Linears between which the values of attention heads may be rotated, each pair tried alone.

Where queries, keys and values are one Linear, nothing says which of its outputs are the values: the
layouts that there are, all after the queries and keys or head by head, are tried as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipeline.errors import UserError
from stages.model.blueprint import LinearSpec
from stages.model.pairs.proven import STAR, PairPattern
from stages.model.rotations.options import R2
from stages.model.rotations.proven import (
    BY_HEAD,
    LAST,
    FusedValues,
    KindOfLayer,
    ProvenRotations,
)
from stages.model.rotations.trial import CLOSE, Trial, unequal

UNREAD = "no Linear's outputs are heads that another one reads as they are"
UNSAID = "no module of its layers says how wide a head of its attention is (head_dim)"


def values_of(trial: Trial, guessed: ProvenRotations) -> tuple[ProvenRotations, float, str]:
    """The places of R2 that hold, with the difference of all together, and why there is none."""
    pairs = dict.fromkeys(pattern for kind in guessed.kinds for pattern in kind.values)
    held = {p for p in pairs if _holds(trial, [_with_pair(kind, p) for kind in guessed.kinds])}
    kinds = [
        replace(kind, values=tuple(p for p in kind.values if p in held)) for kind in guessed.kinds
    ]
    open_yet = [() if kind.values else tuple(_fused(trial, kind)) for kind in kinds]
    some = list(zip(kinds, open_yet, strict=True))
    fused = {
        each
        for each in dict.fromkeys(each for own in open_yet for each in own)
        if _holds(trial, [_with_fused(kind, [each] if each in own else []) for kind, own in some])
    }
    left = replace(
        guessed,
        kinds=tuple(
            replace(kind, fused=tuple(each for each in own if each in fused)) for kind, own in some
        ),
    )
    if not held and not fused:
        return left, 0.0, UNREAD if any(kind.head_dim for kind in kinds) else UNSAID
    difference = trial.difference(left, R2)
    return left, difference, "" if difference <= CLOSE else unequal(difference)


def _with_pair(kind: KindOfLayer, pattern: PairPattern) -> KindOfLayer:
    return replace(kind, values=tuple(p for p in kind.values if p == pattern))


def _with_fused(kind: KindOfLayer, fused: Iterable[FusedValues]) -> KindOfLayer:
    return replace(kind, values=(), fused=tuple(fused))


def _holds(trial: Trial, kinds: Iterable[KindOfLayer]) -> bool:
    """Whether R2 holds in the places that these kinds of layers have."""
    try:
        return trial.difference(ProvenRotations(kinds=tuple(kinds)), R2) <= CLOSE
    except UserError:  # another layer's tensor, channels that are no heads, or none at all
        return False


def _fused(trial: Trial, kind: KindOfLayer) -> Iterator[FusedValues]:
    """Linears that read a norm and could give queries, keys and values, and who could read them."""
    layer = trial.bones.blueprint.layer(kind.layers[0])
    own = {linear.name.removeprefix(f"{layer.name}."): linear for linear in layer.linears}
    readers = dict.fromkeys(target for pattern in kind.norms for target in pattern.targets)
    for source in readers:
        for target in kind.writers:
            if STAR in source or STAR in target or not {source, target} <= own.keys():
                continue
            for layout in (LAST, BY_HEAD):
                each = FusedValues(source=source, target=target, layout=layout)
                if _fits(each, own[source], own[target], kind.head_dim):
                    yield each


def _fits(fused: FusedValues, source: LinearSpec, target: LinearSpec, head_dim: int) -> bool:
    return fused.places(source.out_features, target.in_features, head_dim) is not None
