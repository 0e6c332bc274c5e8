"""Sums over tokens of two models for Linears that share an input, one file of sequences at a time.

Letters are those of `stages.compress.aimed.target_weight`, A the inputs in the original model. A
Linear that is aimed at its own output has D = (A - B) W^T, so that all about it follows from three
products of inputs, (A - B)^T B, (A - B)^T (A - B) and B^T B, however many outputs it has, and the
forward ends at the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.errors import StageFailed
from stages.compress.aimed.arrival import Layout
from stages.compress.aimed.chains import Chains, Watch
from stages.compute.gram import add_cross, add_gram, mirror


@dataclass(kw_only=True, slots=True)
class Sums:
    """What was summed for a group of Linears, all float32 on the device of the model.

    H: [in, in]; tokens: how many; by Linear: its C [out, in], |D|^2, and the square of what is
    wanted.
    """

    H: Tensor
    tokens: int = 0
    crosses: dict[str, Tensor] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    wanted: dict[str, float] = field(default_factory=dict)


def sums_of(chains: Chains, layout: Layout, weights: Mapping[str, Tensor]) -> Sums:
    """Sums over all sequences, in the order of the files.

    weights: float32 [out, in] by name, of Linears that see the same input.
    """
    group = tuple(weights)
    first, features, device = group[0], weights[group[0]].shape[-1], chains.device
    at = {name: layout.arrivals[name] for name in group if name in layout.arrivals}
    places = tuple(dict.fromkeys(arrival.place for arrival in at.values()))
    own = [name for name in group if name not in at]
    sums = Sums(H=torch.zeros(features, features, device=device))
    shift, apart = torch.zeros_like(sums.H), torch.zeros_like(sums.H)
    for name in at:
        sums.crosses[name] = torch.zeros(weights[name].shape, device=device)
        sums.differences[name] = sums.wanted[name] = 0.0
    original = Watch(inputs=group[:1] if own else (), places=places, calls=layout.calls)
    present = Watch(inputs=group[:1], places=places, calls=layout.calls)
    for batch in chains.given.rows:
        counted = None if batch.counted is None else batch.counted.to(device)
        for watch, side in ((original, True), (present, False)):
            before = chains.before(batch, original=side)
            with chains.side(original=side), watch.hooked(chains.model):
                chains.run(batch.ids, before, watch)
        B = multiplied(rows_of(present.seen["input", first], counted, first))
        sums.tokens += len(B)
        add_gram(sums.H, B)
        if own:
            A = rows_of(original.seen["input", first], counted, first)
            E = (A.float() - B.float()).to(B.dtype)
            add_cross(shift, E, B)
            add_gram(apart, E)
        for name, arrival in at.items():
            key = ("place", arrival.place)
            wanted = rows_of(original.seen[key], counted, name).float() / arrival.factor
            D = wanted - rows_of(present.seen[key], counted, name).float() / arrival.factor
            add_cross(sums.crosses[name], D.to(B.dtype), B)
            sums.differences[name] += float(D.square_().sum(dtype=torch.float64))
            sums.wanted[name] += float(wanted.square_().sum(dtype=torch.float64))
    mirror(sums.H)
    if own:
        whole = sums.H + shift + shift.T + mirror(apart)  # A^T A
        for name in own:
            W = weights[name]
            sums.crosses[name] = W @ shift
            sums.differences[name] = _energy(W, apart)
            sums.wanted[name] = _energy(W, whole)
    return sums


def multiplied(x: Tensor) -> Tensor:
    """`x` in the dtype in which products are made: its own where a GPU sums them in float32."""
    half = x.device.type == "cuda" and x.dtype in (torch.bfloat16, torch.float16)
    return x if half else x.float()


def _energy(W: Tensor, H: Tensor) -> float:
    """tr(W H W^T)."""
    return max(0.0, float((W @ H).mul_(W).sum(dtype=torch.float64)))


def rows_of(values: Sequence[Tensor], counted: Tensor | None, name: str) -> Tensor:
    """Rows [n, width] of tokens that count; counted: bool [b, T], None if all of them do."""
    found = []
    for value in values:
        if counted is not None and value.dim() > 2 and value.shape[:2] == counted.shape:
            found.append(value[counted].reshape(-1, value.shape[-1]))
            continue
        flat = value.reshape(-1, value.shape[-1])
        if counted is not None and len(flat) != counted.numel():
            raise StageFailed(
                f"{name} has {len(flat)} input rows for {counted.numel()} tokens, so that padding "
                "cannot be told from text",
                remedy="use a dataset whose sequences are packed to the full length",
            )
        found.append(flat if counted is None else flat[counted.flatten()])
    return found[0] if len(found) == 1 else torch.cat(found)
