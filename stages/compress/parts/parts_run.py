"""Run a decoder layer in parts: the state of one part, and the layer joined from its parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pipeline.stage import Artifact, Task
from stages.compress.layer.state import LayerState
from stages.compress.layer.writer import Compressed
from stages.compress.parts.parts_plan import SEPARATOR, cut
from stages.formats.layer_artifact import CHECKSUM, LAYER, SHARD
from stages.weights.tensor_content import reader

PART = "part"
"""In the meta of a part's result: what the joining node tells of it as the layer's."""


def narrowed(layer: LayerState, part: str) -> LayerState:
    """The state of one part of a layer, nothing of it read yet; `part` is its name."""
    small = cut(layer.subgraph, part.split(SEPARATOR))
    mine = {linear.name for linear in small.linears}
    return replace(
        layer,
        subgraph=small,
        tensors=layer.tensors.only(small.tensors),
        resolved={name: found for name, found in layer.resolved.items() if name in mine},
    )


def joined(layer: LayerState, task: Task, numbers: int) -> Compressed:
    """The whole layer from its parts' results, `parts/0` and on; the rest of it is read."""
    whole, made = Compressed(), set[str]()
    for number in range(numbers):
        task.progress(number / numbers, f"part {number + 1} of {numbers}")
        part = task.inputs[f"parts/{number}"]
        _take(whole, part)
        made |= set(part.meta[PART]["linears"])
    for name in list(layer.tensors):
        if name.rpartition(".")[0] in made:
            del layer.tensors[name]
    rows = {row["name"]: row for row in whole.rows}
    done, whole.modules, whole.rows = whole.modules, {}, []
    whole.finish(layer, {})
    order = solving_order(layer.resolved, whole.batches)
    whole.modules = {name: done[name] for name in order if name in done}
    whole.schemes = {
        info["prefix"]: layer.resolved[name].scheme for name, info in whole.modules.items()
    }
    whole.fallbacks.sort(key=lambda told: order.index(told["module"]))
    names = (linear.name for linear in layer.subgraph.linears)
    whole.rows = [rows[name] for name in names if name in rows]
    return whole


def solving_order(names: Iterable[str], batches: Mapping[str, str]) -> list[str]:
    """Modules in the order in which a layer in one piece solves them, which its files have.

    names: all of them in the layer's order. batches: module -> what it was solved with, those in no
    batch left out: they come first.
    """
    found: dict[str, list[str]] = {"": []}
    for name in names:
        found.setdefault(batches.get(name, ""), []).append(name)
    return [name for batch in found.values() for name in batch]


def _take(whole: Compressed, part: Artifact) -> None:
    info: dict[str, Any] = part.json(LAYER)
    told: Mapping[str, Any] = part.meta[PART]
    shard, sums = reader(part, SHARD), reader(part, CHECKSUM)
    whole.tensors.update(shard.read(list(shard.specs())))
    whole.checksums |= sums.read(list(sums.specs()))
    whole.modules |= info["modules"]
    whole.changed += info["changed"]
    whole.rows += told["layers"]
    whole.fallbacks += told["fallbacks"]
    whole.batches |= told["batches"]
    for found in told["distributions"]:
        kept = {key: found[key] for key in found if key not in ("name", "relative_error")}
        whole.distributions[found["name"]] = kept
