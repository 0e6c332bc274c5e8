"""Finder of smoothing pairs: scale a module's output, see who is given it scaled, and make it up.

Nothing is known of a layer's code. One module's output channels are divided by random powers of
two. Whoever is then given exactly its old input over those factors reads that output, whatever
views, casts, transposes, attention or gathers of tokens lie between; its columns are multiplied by
them. That may set others right (experts, once the router chooses as before), so it is done again
until everything that the layer hands on is what it was, to the bit: that is the proof. Where
something else read the output, or what lies between does not keep factors, it never is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from stages.model.blueprint import Pair
from stages.model.pairs.bench import Bench, Seen, moved, powers, widened
from stages.model.pairs.namer import Namer
from stages.model.pairs.proven import PairPattern

TURNS = 6
"""Forwards until a pair is complete: readers, a router before its experts, and some to spare."""
DEPENDS = "more than these depends on it, or in another way"
Grouping = tuple[int, int]
"""Repeats and head_dim of a Pair."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grown:
    """A source and all that was seen to read it; `complete` where nothing else did."""

    pair: Pair
    complete: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The patterns that hold in one layer, those of norms first, and what was refused and why."""

    patterns: tuple[PairPattern, ...]
    refused: tuple[str, ...]


def find(bench: Bench, index: int, more: Iterable[Pair] = ()) -> Found:
    """The smoothing pairs in decoder layer number `index`.

    `more` are candidates that somebody names, proven alike.
    """
    layer, name = bench.bones.layers[index], bench.bones.blueprint.members[index]
    plain = bench.run(last=index)
    namer = Namer.of(layer, name)
    patterns: dict[str, PairPattern] = {}
    refused: list[str] = []
    tried: set[tuple[str, float]] = set()
    for start in (*_starts(layer, name, plain), *more):
        source = namer.starred(start.source)
        # one expert stands for all of them
        if source in patterns or (not start.targets and (source, start.norm_offset) in tried):
            continue
        grown = grow(bench, index, plain, start)
        if grown is None:
            continue
        tried.add((source, start.norm_offset))
        if not grown.pair.targets:
            continue
        reason = namer.unfit(grown.pair) if grown.complete else DEPENDS
        if reason:
            readers = ", ".join(dict.fromkeys(map(namer.starred, grown.pair.targets)))
            refused.append(f"{source} -> {readers}: {reason}")
        else:
            patterns[source] = namer.pattern(grown.pair)
    return Found(patterns=tuple(patterns.values()), refused=tuple(dict.fromkeys(refused)))


def grow(bench: Bench, index: int, plain: Seen, start: Pair) -> Grown | None:
    """All readers of a source in layer number `index`; None where what it writes changes nothing.

    (All tokens that an expert was given may be such as go on without any.) `plain` is a run up to
    that layer with nothing changed. Readers that `start` has are kept.
    """
    channels = len(bench.tensors[f"{start.source}.weight"])
    factors = powers(channels, seed=index)
    pair = start
    alone = bench.run(moved(bench.tensors, start, factors, targets=False), last=index)
    if alone.same(plain):
        return None
    for _ in range(TURNS):
        seen = bench.run(moved(bench.tensors, pair, factors), last=index)
        if seen.same(plain):
            return Grown(pair=pair, complete=True)
        fresh = _readers(bench, pair, plain, seen, factors)
        if not fresh:
            break
        pair = _with(pair, fresh, plain.inputs)
    return Grown(pair=pair, complete=False)


def _readers(
    bench: Bench, pair: Pair, plain: Seen, seen: Seen, factors: Tensor
) -> dict[str, Grouping]:
    """Modules beyond the pair's targets that are given their input divided by factors."""
    fresh: dict[str, Grouping] = {}
    for reader, before in plain.inputs.items():
        if reader not in pair.targets:
            grouping = _reads(before, seen.inputs.get(reader, []), factors)
            inputs = bench.tensors[f"{reader}.weight"].shape[-1]
            if grouping is not None and inputs == grouping[0] * len(factors):
                fresh[reader] = grouping
    return fresh


def _reads(before: list[Tensor], after: list[Tensor], factors: Tensor) -> Grouping | None:
    """How the channels of an input are those of a source, if it was divided by its factors."""
    if not before or len(before) != len(after):
        return None
    one, channels = before[0], len(factors)
    repeats, rest = divmod(one.shape[-1], channels)
    if rest or one.shape != after[0].shape:
        return None
    widths = [w for w in range(channels, 0, -1) if channels % w == 0] if repeats > 1 else [0]
    for width in widths:
        wide = widened(factors, repeats, width)
        if all(_divided(x, y, wide) for x, y in zip(before, after, strict=True)):
            return (repeats, width) if _alive(before) else None
    return None


def _divided(before: Tensor, after: Tensor, factors: Tensor) -> bool:
    return before.shape == after.shape and torch.equal(after * factors, before)


def _alive(inputs: list[Tensor]) -> bool:
    """Whether most channels are not zero in all calls (ZAYA also asks for what follows zeros)."""
    alive = torch.stack([(x != 0).flatten(0, -2).any(dim=0) for x in inputs]).any(dim=0)
    return 2 * int(alive.sum()) > len(alive)


def _with(pair: Pair, fresh: Mapping[str, Grouping], order: Iterable[str]) -> Pair:
    """The pair with more targets, all of which group channels as the first one does."""
    grouping = (pair.repeats, pair.head_dim) if pair.targets else next(iter(fresh.values()))
    targets = {*pair.targets, *(name for name, own in fresh.items() if own == grouping)}
    repeats, width = grouping
    ordered = tuple(name for name in order if name in targets)
    return replace(pair, targets=ordered, repeats=repeats, head_dim=width)


def _starts(layer: nn.Module, name: str, plain: Seen) -> Iterator[Pair]:
    """Sources that may have readers: norms by either kind of weight, and Linears that ran."""
    modules = [(f"{name}.{local}", module) for local, module in layer.named_modules() if local]
    for own, module in modules:
        weight = module._parameters.get("weight")
        if weight is not None and weight.dim() == 1:
            yield Pair(source=own, targets=())
            yield Pair(source=own, targets=(), norm_offset=1.0)
    for own, module in modules:
        if isinstance(module, nn.Linear) and plain.inputs.get(own):
            yield Pair(source=own, targets=(), source_kind="linear")
