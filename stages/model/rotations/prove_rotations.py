"""Proof in float64, on a shrunken instance, of where a model's channels may be rotated.

Nothing is known of a layer's code. Which modules read a norm is known from the smoothing pairs;
the other Linears as wide as the residual stream are taken for those that write it. The small model
is rotated by the code that rotates the real one, with random orthogonal matrices: its logits are
what they were, or it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from stages.compute.rotation import RANDOM
from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_class import blueprint_of
from stages.model.meta_model import config_of, meta_model, tree_of
from stages.model.pairs import proven as pairs
from stages.model.pairs.namer import Namer, head_dim_of
from stages.model.rotations.double import Double
from stages.model.rotations.options import R1, R2, RotationOptions
from stages.model.rotations.plan import rotation_plan
from stages.model.rotations.proven import KindOfLayer, ProvenRotations
from stages.model.rotations.rotated_source import RotatedSource
from stages.model.shrunken import Shrunken, randomize
from stages.model.shrunken.depth import Signature, signatures
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
    mine, values, reason = _values(trial, ProvenRotations(kinds=tuple(kinds)))
    proven, refused = _residual(trial, mine)
    differences = {} if reason else {R2: values}
    if not refused:
        together = trial.difference(proven, *((R1,) if reason else (R1, R2)))
        differences[R1] = together
        refused = "" if together <= CLOSE else _unequal(together)
    held = {name: kind.values for kind in proven.kinds for name in kind.layers}
    placed = [
        KindOfLayer(
            layers=kind.layers,
            head_dim=kind.head_dim,
            norms=guess.norms,
            writers=guess.writers,
            values=held[trial.bones.blueprint.members[own.index(signature)]],
        )
        for signature, guess in guessed.items()
        for kind in found.kinds  # their heads may differ
        if not layers[signature].keys().isdisjoint(kind.layers)
    ]
    told = {name: why for name, why in ((R1, refused), (R2, reason)) if why}
    return replace(proven, kinds=tuple(placed), refused=told, difference=differences)


def _values(trial: Trial, guessed: ProvenRotations) -> tuple[ProvenRotations, float, str]:
    """What is left of pairs of Linears between which heads may be rotated, each tried alone.

    With the difference of all together, and why there is none.
    """
    patterns = dict.fromkeys(p for kind in guessed.kinds for p in kind.values)
    held = set[pairs.PairPattern]()
    for pattern in patterns:
        kinds = tuple(
            replace(kind, values=tuple(p for p in kind.values if p == pattern))
            for kind in guessed.kinds
        )
        try:
            difference = trial.difference(replace(guessed, kinds=kinds), R2)
        except UserError:  # another layer's tensor, or channels that are no heads
            continue
        if difference <= CLOSE:
            held.add(pattern)
    kinds = tuple(
        replace(kind, values=tuple(p for p in kind.values if p in held)) for kind in guessed.kinds
    )
    left = replace(guessed, kinds=kinds)
    if not held:
        return left, 0.0, "no Linear's outputs are heads that another one reads as they are"
    difference = trial.difference(left, R2)
    return left, difference, "" if difference <= CLOSE else _unequal(difference)


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
                reason, least = _unequal(difference), difference
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


def _layers_of(config: Mapping[str, Any]) -> dict[Signature, dict[str, None]]:
    """Names of the whole model's layers in order, by their signature."""
    names = tree_of(meta_model(config_of(config), "float32")).layers
    found: dict[Signature, dict[str, None]] = {}
    for name, signature in zip(names, signatures(config, widths=False) or (), strict=False):
        found.setdefault(signature, {})[name] = None
    return found


def _unequal(difference: float) -> str:
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
