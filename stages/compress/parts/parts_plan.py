"""Planning of a decoder layer in parts: which Linears are in which, and what each costs.

Modules that engines run as one are in one part, so that what they share (a global scale, a decision
to leave them alone) is decided there. All else of a weight's result depends on itself and on its
inputs only, so that a part's bytes are those that the whole layer gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pipeline.key import Json, canonical
from pipeline.stage import Estimate, Parts
from stages.compress.config import CompressConfig
from stages.compress.layer_plan import layer_estimate
from stages.compute.estimates import COMPRESS_PROCESS
from stages.compute.work import COPY, NODE
from stages.model.blueprint import Blueprint, Subgraph
from stages.schemes.resolve import Resolved

SEPARATOR = ","
"""Between the names of the Linears of a part, which are its name."""
JOINING = frozenset({"source", "model"})
"""Inputs of a node that joins: parameters that no part has are read from the source."""
COPIED = 4e8
"""Bytes a second of joining. An assumption, as for copies into a checkpoint."""


def layer_parts(
    config: CompressConfig, blueprint: Blueprint, formats: Mapping[str, Resolved]
) -> Parts | None:
    """The parts of every layer with more weights than a part should have; None: no layer has.

    A layer of one part is compressed whole.
    """
    if config.part_parameters is None:
        return None
    names: dict[str | None, tuple[str, ...]] = {}
    estimates: dict[tuple[str | None, str], Estimate] = {}
    for layer in blueprint.layers:
        groups = grouped(layer, formats, config.part_parameters)
        if len(groups) < 2:
            continue
        names[layer.name] = tuple(SEPARATOR.join(group) for group in groups)
        for group, name in zip(groups, names[layer.name], strict=True):
            estimates[layer.name, name] = layer_estimate(
                config, cut(layer, group), formats, blueprint.dtype, streams=False
            )
    return Parts(names=names, joining=JOINING, estimates=estimates) if names else None


def named_formats(part: str, formats: Mapping[str, Resolved]) -> Json:
    """Module -> its number format, of those in the part of this name."""
    names = part.split(SEPARATOR)
    return {name: canonical(formats[name].scheme) | {"targets": []} for name in names}


def joining_estimate(whole: Estimate) -> Estimate:
    """The cost of joining the parts of a layer that would cost `whole` in one piece."""
    return Estimate(
        bytes=whole.bytes,
        memory=COMPRESS_PROCESS + 2 * whole.bytes,
        seconds=0.1 + whole.bytes / COPIED,
        work={COPY: float(whole.bytes), NODE: 1.0},
    )


def cut(layer: Subgraph, names: Iterable[str]) -> Subgraph:
    """The part of a layer that holds these Linears and their parameters, and nothing else."""
    mine = set(names)
    linears = tuple(linear for linear in layer.linears if linear.name in mine)
    tensors = {n: t for n, t in layer.tensors.items() if n.rpartition(".")[0] in mine}
    return replace(
        layer,
        linears=linears,
        tensors=tensors,
        shapes={name: layer.shapes[name] for name in tensors if name in layer.shapes},
        parameters=(count := sum(m.in_features * m.out_features for m in linears)),
        bytes=layer.bytes * count // max(1, layer.parameters),
        fused=tuple(group for group in layer.fused if mine.issuperset(group)),
        pairs=(),
    )


def grouped(layer: Subgraph, quantized: Iterable[str], most: int) -> list[tuple[str, ...]]:
    """Linears that are quantized, by the part that they are in: about `most` weights in each.

    Those of one part follow each other in the layer, and fused ones stay together.
    """
    wanted = set(quantized)
    first = {name: group[0] for group in layer.fused for name in group}
    stacks: dict[str, list[str]] = {}
    size = {linear.name: linear.in_features * linear.out_features for linear in layer.linears}
    for linear in layer.linears:
        if linear.name in wanted:
            stacks.setdefault(first.get(linear.name, linear.name), []).append(linear.name)
    found: list[list[str]] = []
    taken = 0
    for stack in stacks.values():
        weights = sum(size[name] for name in stack)
        if not found or taken + weights > most:
            found.append([])
            taken = 0
        found[-1] += stack
        taken += weights
    return [tuple(names) for names in found]
