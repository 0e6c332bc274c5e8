"""Places of routed experts and their routers in a checkpoint, found by building the model twice.

The class of a model is built on the meta device with all experts and with fewer. What has another
shape then belongs to the experts or to what scores them (router weights, correction biases, scales
of each expert), and the axis that differs is theirs: no table of names or families.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import UserError
from stages.model.blueprint import Blueprint, Subgraph
from stages.model.meta_model import config_of, meta_model
from stages.model.shrunken.instance import everything
from stages.model.structure.fewer_experts import counts_experts, with_experts
from stages.model.structure.selected_source import Selection, Taken

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertLayer:
    """The experts of decoder layer `layer`, in module `container`.

    `names`: for each expert, its tensors' local names -> names in the checkpoint, of those that are
    there on their own. `axes`: other tensors of the checkpoint -> the axis of the experts.
    """

    layer: str
    container: str
    names: tuple[Mapping[str, str], ...]
    axes: Mapping[str, int] = field(default_factory=dict)

    @property
    def experts(self) -> int:
        return len(self.names)

    def select(self, kept: Sequence[int]) -> Selection:
        """The checkpoint's tensors of this layer with the experts `kept` alone, renumbered."""
        renamed = {
            stored: self.names[expert][local]
            for slot, expert in enumerate(kept)
            for local, stored in self.names[slot].items()
        }
        gone = [stored for names in self.names[len(kept) :] for stored in names.values()]
        taken = {
            stored: Taken(axis=axis, of=self.experts, kept=tuple(kept))
            for stored, axis in self.axes.items()
        }
        return Selection(renamed=renamed, taken=taken, dropped=tuple(gone))


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertPlaces:
    """All layers with experts, and the checkpoint's tensors of extra predictions with experts."""

    layers: tuple[ExpertLayer, ...]
    extra: tuple[str, ...] = ()

    def select(self, kept: Mapping[str, Sequence[int]]) -> Selection:
        """The tensors of the model whose layers have the experts `kept`, by the layer's name."""
        parts = [layer.select(kept[layer.layer]) for layer in self.layers]
        return Selection.all([*parts, Selection(dropped=self.extra)])


def experts_of(blueprint: Blueprint) -> int:
    """How many routed experts each layer has; UserError where none has any, or they differ."""
    if blueprint.outlined:
        raise UserError(
            f"{blueprint.outlined}, so that its experts cannot be measured",
            remedy="leave reap out, or use a model whose class transformers has",
        )
    counts = {
        name: _count(layer, name)
        for layer in blueprint.layers
        for name in layer.expert_containers()
    }
    if not counts:
        raise UserError(
            f"{blueprint.architecture} has no routed experts, and reap prunes experts",
            remedy="leave reap out; wanda and sparsegpt prune the weights of any model",
        )
    if len(set(counts.values())) > 1:
        few, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        raise UserError(
            f"{few} has {counts[few]} experts and {most} {counts[most]}: one number for all is "
            "what can be pruned to another",
            remedy="leave reap out",
        )
    return next(iter(counts.values()))


def expert_places(blueprint: Blueprint, left: int) -> ExpertPlaces:
    """Where experts and routers are, of a model that is to have `left` of its experts.

    Raises UserError where the class cannot be built so, or has what depends on experts otherwise.
    """
    experts = experts_of(blueprint)
    layers = tuple(
        _layer(blueprint, layer, axes)
        for layer, axes in _axes_by_layer(blueprint, experts, left)
        if layer.expert_containers()
    )
    return ExpertPlaces(layers=layers, extra=tuple(_extra(blueprint)))


def fewer_experts(config: Mapping[str, Any], before: int, after: int) -> dict[str, Any]:
    """A parsed config.json that says `after` experts, also where it left their number out."""
    if not counts_experts(config, before):
        config = everything(config_of(config))
    return with_experts(config, before, after)


def _axes_by_layer(
    blueprint: Blueprint, experts: int, left: int
) -> Iterator[tuple[Subgraph, dict[str, int]]]:
    """Every layer, with the axis of the experts of what it has of them outside their container."""
    whole = meta_model(config_of(blueprint.config), blueprint.dtype).state_dict()
    config = config_of(fewer_experts(blueprint.config, experts, left))
    fewer = meta_model(config, blueprint.dtype).state_dict()
    containers = [name for layer in blueprint.layers for name in layer.expert_containers()]
    inside = tuple(f"{name}." for name in containers)
    around = tuple(f"{name.rpartition('.')[0]}." for name in containers)
    members = tuple(f"{name}." for name in blueprint.members)
    axes: dict[str, int] = {}
    changed: set[str] = set()
    for name, tensor in whole.items():
        there = fewer.get(name)
        if name.startswith(around) and not tensor.is_floating_point():
            raise _dependent(name, "a table of experts' numbers")
        if there is None or there.dim() != tensor.dim():
            raise _dependent(name, "there for some numbers of experts only")
        if there.shape == tensor.shape:
            continue
        if name.startswith(inside):
            changed.add(next(start for start in inside if name.startswith(start)))
        elif name.startswith(members):
            axes[name] = _axis(name, tuple(tensor.shape), tuple(there.shape), (experts, left))
        else:
            raise _dependent(name, "outside the decoder layers")
    if missing := [start for start in inside if start not in changed]:
        raise UserError(
            f"{missing[0].rstrip('.')} keeps its {experts} experts where config.json says {left}",
            remedy="report the architecture with its config.json",
        )
    for layer in blueprint.layers:
        yield layer, {n: a for n, a in axes.items() if n.startswith(f"{layer.name}.")}


def _axis(name: str, whole: Shape, fewer: Shape, counts: tuple[int, int]) -> int:
    """The one axis along which a tensor has an entry for each expert."""
    differing = [axis for axis, (a, b) in enumerate(zip(whole, fewer, strict=True)) if a != b]
    first = differing[0]
    if len(differing) > 1 or (whole[first], fewer[first]) != counts:
        raise _dependent(
            name, f"{list(whole)} for {counts[0]} experts, {list(fewer)} for {counts[1]}"
        )
    return first


def _layer(blueprint: Blueprint, layer: Subgraph, axes: Mapping[str, int]) -> ExpertLayer:
    [container, *more] = layer.expert_containers()
    if more:
        raise _dependent(more[0], f"beside other experts in {layer.name}")
    names: list[dict[str, str]] = [{} for _ in range(_count(layer, container))]
    places: dict[str, int] = {}
    for name, stored in layer.tensors.items():
        if not name.startswith(f"{container}."):
            continue
        number, _, local = name.removeprefix(f"{container}.").partition(".")
        if not number.isdecimal():
            raise _dependent(name, "shared by all experts")
        if stored in blueprint.cuts:
            places[blueprint.cuts[stored].stored] = 0
        else:
            names[int(number)][local] = stored
    for name, axis in axes.items():
        stored = layer.tensors.get(name, "")
        if not stored or stored in blueprint.joins:
            raise _dependent(name, "made of several tensors of the checkpoint")
        places[stored] = axis
    return ExpertLayer(layer=layer.name, container=container, names=tuple(names), axes=places)


def _count(layer: Subgraph, container: str) -> int:
    start = f"{container}."
    inside = (n.removeprefix(start) for n in layer.tensors if n.startswith(start))
    return len({name.partition(".")[0] for name in inside})


def _extra(blueprint: Blueprint) -> Iterator[str]:
    """Tensors of layers of extra predictions, as far as these have experts of their own."""
    starts = set()
    for name in blueprint.carried:
        if ".experts." not in name:
            continue
        inside = name.startswith(f"{blueprint.decoder}.layers.")
        parts = name.removeprefix(f"{blueprint.decoder}.layers.").split(".")
        starts.add(f"{blueprint.decoder}.layers.{parts[0]}." if inside else f"{parts[0]}.")
    yield from (name for name in blueprint.carried if name.startswith(tuple(starts)))


def _dependent(name: str, what: str) -> UserError:
    return UserError(
        f"{name} is {what}: with fewer experts the model would compute something else",
        remedy="leave reap out for this architecture, and report it with its config.json",
    )
