"""Proof in float64, on a shrunken instance, of where a model's channels may be rotated.

Nothing is known of a layer's code. Which modules read a norm is known from the smoothing pairs;
the other Linears as wide as the residual stream are taken for those that write it. The small model
is rotated by the code that rotates the real one, with random orthogonal matrices: its logits are
what they were, or it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from pipeline.errors import UserError
from stages.model.meta_model import config_of, meta_model, tree_of
from stages.model.pairs import proven as pairs
from stages.model.pairs.namer import Namer, head_dim_of
from stages.model.rotations.head_values import values_of
from stages.model.rotations.options import R1, R2
from stages.model.rotations.proven import KindOfLayer, ProvenRotations
from stages.model.rotations.trial import CLOSE, Trial, trial_of, unequal
from stages.model.shrunken import Shrunken
from stages.model.shrunken.depth import Signature, signatures
from stages.model.skeleton import Skeleton


def prove_rotations(
    config: Mapping[str, Any], small: Shrunken, found: pairs.ProvenPairs
) -> ProvenRotations:
    """Where the model of a parsed config.json may be rotated, proven on its shrunken instance.

    `found` are its smoothing pairs.
    """
    trial = trial_of(small)
    layers, own = _layers_of(config), signatures(small.config, widths=False) or []
    by_name = {name: kind for kind in found.kinds for name in kind.layers}
    whole = {s: by_name[n] for s, names in layers.items() for n in names if n in by_name}
    kinds, guessed = list[KindOfLayer](), dict[Signature, KindOfLayer]()
    for index, signature in enumerate(own):
        if signature in whole:
            module = trial.bones.layers[index]
            name = trial.bones.blueprint.members[index]
            kind = _guess(trial.bones, index, whole[signature].patterns)
            kinds.append(replace(kind, layers=(name,), head_dim=head_dim_of(module)))
            guessed[signature] = kind
    mine, values, reason = values_of(trial, ProvenRotations(kinds=tuple(kinds)))
    proven, refused = _residual(trial, mine)
    differences = {} if reason else {R2: values}
    if not refused:
        together = trial.difference(proven, *((R1,) if reason else (R1, R2)))
        differences[R1] = together
        refused = "" if together <= CLOSE else unequal(together)
    held = {name: kind for kind in proven.kinds for name in kind.layers}
    member = {s: trial.bones.blueprint.members[own.index(s)] for s in guessed}
    placed = [
        KindOfLayer(
            layers=kind.layers,
            head_dim=kind.head_dim,
            norms=guess.norms,
            writers=guess.writers,
            values=held[member[signature]].values,
            fused=held[member[signature]].fused,
        )
        for signature, guess in guessed.items()
        for kind in found.kinds  # their heads may differ
        if not layers[signature].keys().isdisjoint(kind.layers)
    ]
    told = {name: why for name, why in ((R1, refused), (R2, reason)) if why}
    return replace(proven, kinds=tuple(placed), refused=told, difference=differences)


def _residual(trial: Trial, guessed: ProvenRotations) -> tuple[ProvenRotations, str]:
    """The ends of the residual stream with which R1 holds, and why it does not."""
    embeddings, norms = _ends(trial.bones)
    between = list(dict.fromkeys(_weighted(trial.bones, guessed)))
    if len(norms) != 1:
        named = ", ".join(norms) or "none"
        return guessed, f"one norm before the lm_head is expected outside its layers: {named}"
    if between:
        return guessed, (
            f"the weight of {', '.join(between)} multiplies channels between a block and the "
            "residual stream, and no module that reads it could take it over"
        )
    reason, least = "", float("inf")
    offsets = {p.norm_offset for kind in guessed.kinds for p in kind.norms} or {0.0}
    for offset in sorted(offsets):
        for keeps in (False, True):
            tried = replace(
                guessed, norm=norms[0], offset=offset, embeddings=embeddings, keeps_mean=keeps
            )
            try:
                difference = trial.difference(tried, R1)
            except UserError as error:
                return guessed, error.what
            if difference <= CLOSE:
                return tried, ""
            if difference < least:
                reason, least = unequal(difference), difference
    return guessed, reason


def _guess(bones: Skeleton, index: int, patterns: Iterable[pairs.PairPattern]) -> KindOfLayer:
    """Norms of the residual stream, what may write it, and pairs of Linears, in one layer."""
    layer, hidden = bones.blueprint.layers[index], bones.blueprint.hidden_size
    namer = Namer.of(bones.layers[index], layer.name)
    wide = {n.removesuffix(".weight") for n, shape in layer.shapes.items() if shape == (hidden,)}
    sources = {namer.starred(name) for name in wide}
    given = tuple(patterns)
    norms = tuple(
        p for p in given if p.source_kind == "norm" and not p.grouped and p.source in sources
    )
    readers = {target for pattern in norms for target in pattern.targets}
    names = (namer.starred(x.name) for x in layer.linears if x.out_features == hidden)
    writers = tuple(dict.fromkeys(name for name in names if name not in readers))
    values = tuple(p for p in given if p.source_kind == "linear")
    return KindOfLayer(layers=(), head_dim=0, norms=norms, writers=writers, values=values)


def _weighted(bones: Skeleton, guessed: ProvenRotations) -> Iterable[str]:
    """Norms as wide as the residual stream whose output no Linear alone reads."""
    hidden = bones.blueprint.hidden_size
    for layer in bones.blueprint.layers:
        kind = next((k for k in guessed.kinds if layer.name in k.layers), None)
        known = {p.source for p in kind.norms} if kind is not None else set()
        for name, shape in layer.shapes.items():
            local = name.removeprefix(f"{layer.name}.").removesuffix(".weight")
            if shape == (hidden,) and name.endswith(".weight") and local not in known:
                yield local


def _ends(bones: Skeleton) -> tuple[tuple[str, ...], list[str]]:
    """Embeddings and norms outside the layers that are as wide as the residual stream."""
    blueprint, inside = bones.blueprint, f"{bones.blueprint.decoder}."
    embeddings, norms = [blueprint.embedding], list[str]()
    for name, shape in blueprint.outside_shapes.items():
        module = name.removesuffix(".weight")
        if not name.endswith(".weight") or not module.startswith(inside):
            continue
        if shape == (blueprint.hidden_size,):
            norms.append(module)
        found = bones.model.get_submodule(module)
        if isinstance(found, nn.Embedding) and shape[-1] == blueprint.hidden_size:
            embeddings.append(module)
    return tuple(dict.fromkeys(embeddings)), norms


def _layers_of(config: Mapping[str, Any]) -> dict[Signature, dict[str, None]]:
    """Names of the whole model's layers in order, by their signature."""
    names = tree_of(meta_model(config_of(config), "float32")).layers
    found: dict[Signature, dict[str, None]] = {}
    for name, signature in zip(names, signatures(config, widths=False) or (), strict=False):
        found.setdefault(signature, {})[name] = None
    return found
