"""Figures of one quantized weight: range and signs of scales, use of codes, empty blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from stages.quantized.stored_weight import Stored, plain_scale

CHUNK = 4_000_000
"""Weights that are looked at together: what bounds the memory beside the codes."""
MOST_KINDS = 64
"""Distinct values that are counted of one thing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Counts and ranges over the weights of one or several modules.

    `scales` are numbers of scales as stored, `least` and `most` their magnitudes without zeros;
    `denormal` those below the smallest normal number of their dtype. `zeros` are weights that
    decode to 0, `low_codes` those at the lowest code of a signed integer. `empty` counts the stored
    scales of blocks whose weights are all 0, `largest` the largest magnitudes of codes of the
    others. `globals` are the values that multiply or divide all scales of a module, `top_scales`
    the largest scale of each module, both one for each module at most.
    """

    weights: int = 0
    scales: int = 0
    least: float | None = None
    most: float | None = None
    negative: int = 0
    zero: int = 0
    denormal: int = 0
    wrong: int = 0
    zeros: int = 0
    negative_zeros: int = 0
    low_codes: int = 0
    zero_points: tuple[int, int] | None = None
    ordered: int = 0
    empty: Counter[float] = field(default_factory=Counter)
    largest: Counter[float] = field(default_factory=Counter)
    globals: tuple[float, ...] = ()
    top_scales: tuple[float, ...] = ()

    def __add__(self, other: Figures) -> Figures:
        """The figures of both together."""
        counts = (
            *("weights", "scales", "negative", "zero", "denormal", "wrong", "zeros"),
            *("negative_zeros", "low_codes", "ordered"),
        )
        points = [p for p in (self.zero_points, other.zero_points) if p is not None]
        added: dict[str, int] = {n: getattr(self, n) + getattr(other, n) for n in counts}
        return replace(
            self,
            **added,
            least=min((x for x in (self.least, other.least) if x is not None), default=None),
            most=max((x for x in (self.most, other.most) if x is not None), default=None),
            zero_points=(min(p[0] for p in points), max(p[1] for p in points)) if points else None,
            empty=Counter(dict((self.empty + other.empty).most_common(MOST_KINDS))),
            largest=Counter(dict((self.largest + other.largest).most_common(MOST_KINDS))),
            globals=self.globals + other.globals,
            top_scales=self.top_scales + other.top_scales,
        )


def of_scales(scale: Tensor, smallest_normal: float) -> Figures:
    """The figures of scales in float32, of a dtype with that smallest normal number."""
    size = scale.abs()
    sound = torch.isfinite(scale)
    nonzero = size[sound & (size > 0)]
    return Figures(
        scales=scale.numel(),
        least=float(nonzero.min()) if nonzero.numel() else None,
        most=float(nonzero.max()) if nonzero.numel() else None,
        negative=int((scale < 0).sum()),
        zero=int((scale == 0).sum()),
        denormal=int((nonzero < smallest_normal).sum()),
        wrong=int((~sound).sum()),
    )


def figures(stored: Stored, smallest_normal: float) -> Figures:
    """The figures of one weight; `smallest_normal` is that of the dtype its scales are stored in.

    Codes are looked at in runs of rows.
    """
    scale = plain_scale(stored.scale)
    found = of_scales(scale, smallest_normal)
    other = stored.factor if stored.factor is not None else stored.global_scale
    points = stored.zero_point
    start = replace(
        found,
        wrong=found.wrong + int((stored.scale == 255).sum()) * _exponents(stored.scale),
        zero_points=None if points is None else (int(points.min()), int(points.max())),
        ordered=int(stored.columns is not None),
        globals=() if other is None else (float(other.float().flatten()[0]),),
        top_scales=() if found.most is None else (found.most,),
    )
    return _codes(stored, scale, start)


def _exponents(scale: Tensor) -> int:
    """1 for scales that are exponents, of which 255 means NaN; else 0."""
    return int(scale.dtype == torch.uint8)


def _codes(stored: Stored, scale: Tensor, found: Figures) -> Figures:
    args = stored.grid
    low = -(1 << (args.num_bits - 1)) if args.type == "int" else None
    tops: list[Tensor] = []
    for codes, points in _chunks(stored):
        values = codes.float()
        if low is not None:
            found = replace(found, low_codes=found.low_codes + int((values == low).sum()))
        else:
            signed = int((torch.signbit(values) & (values == 0)).sum())
            found = replace(found, negative_zeros=found.negative_zeros + signed)
        if points is not None:
            values = values - points
        size = values.abs_()
        found = replace(
            found,
            weights=found.weights + size.numel(),
            zeros=found.zeros + int((size == 0).sum()),
        )
        tops.append(largest(size, stored))
    top = torch.cat(tops) if len(tops) != 1 else tops[0]
    if stored.scale.numel() == 1:
        top = top.max().reshape(1)
    top, scale = top.flatten(), scale.flatten()
    if top.numel() != scale.numel():
        return found  # scales of another shape than the groups: nothing to pair them with
    empty = top == 0
    return replace(found, empty=_counts(scale[empty]), largest=_counts(top[~empty]))


def _chunks(stored: Stored) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Runs of rows of the codes, in whole blocks, each with its zero points spread out."""
    rows, columns = stored.codes.shape
    height = 1 if stored.grid.block_structure is None else stored.grid.block_structure[0]
    step = max(1, CHUNK // max(1, columns) // height) * height
    for start in range(0, rows, step):
        codes = stored.codes[start : start + step]
        yield codes, _points(stored, start, codes)


def _points(stored: Stored, start: int, codes: Tensor) -> Tensor | None:
    if stored.zero_point is None:
        return None
    points = stored.zero_point
    if points.numel() > 1 and stored.grid.block_structure is None:
        points = points[start : start + codes.shape[0]]
    elif points.numel() > 1 and stored.grid.block_structure is not None:
        height = stored.grid.block_structure[0]
        points = points[start // height : -(-(start + codes.shape[0]) // height)]
    part = Stored(grid=stored.grid, codes=codes, scale=points, columns=stored.columns)
    return part.spread(points.float())


def largest(size: Tensor, stored: Stored) -> Tensor:
    """The largest of `size`, [rows, in], of each scale: [rows or row blocks, groups].

    [1] for a scale of the whole weight, of which this is a run of rows.
    """
    rows, columns = size.shape
    if stored.scale.numel() == 1:
        return size.max().reshape(1) if size.numel() else size.new_zeros(1)
    if stored.columns is not None:
        groups = stored.scale.shape[1]
        index = stored.columns.expand(rows, columns)
        return size.new_zeros(rows, groups).scatter_reduce_(1, index, size, "amax")
    block = stored.grid.block_structure
    height, width = block if block is not None else (1, stored.grid.group_size or columns)
    if block is None and stored.scale.dim() == 2 and stored.scale.shape[1] == 1:
        width = columns
    padded = torch.nn.functional.pad(size, (0, -columns % width, 0, -rows % height))
    tiles = padded.unflatten(1, (-1, width)).unflatten(0, (-1, height))
    top: Tensor = tiles.amax(dim=(1, 3))
    return top


def _counts(values: Tensor) -> Counter[float]:
    """How often each value occurs, of the most frequent ones."""
    kinds, counts = values.unique(return_counts=True)
    found = Counter(dict(zip(kinds.tolist(), counts.tolist(), strict=True)))
    return Counter(dict(found.most_common(MOST_KINDS)))
