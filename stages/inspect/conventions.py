"""Conventions of a checkpoint's writer, recognised by its numbers, each with the evidence.

stages/docs/conventions.md says who writes which, by version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.units import counted, number, percent
from stages.inspect.block_rules import block_rule
from stages.inspect.rows import Row

E4M3_LARGEST, E2M1_LARGEST = 448.0, 6.0
ENOUGH = 64
"""Blocks that a share has to be of before it says anything."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Convention:
    """What the numbers show, the evidence, and the rows that show it."""

    what: str
    evidence: str
    rows: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {"what": self.what, "evidence": self.evidence, "rows": list(self.rows)}


def conventions(rows: Sequence[Row], quantization: Mapping[str, Any] | None) -> list[Convention]:
    """All conventions that are recognised; those of several rows with their evidence told once."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        for rule in RULES:
            for what, evidence in rule(row):
                found.setdefault(what, []).append((row.name, evidence))
    stated = quantization or {}
    merged = [
        Convention(
            what=what,
            evidence=told[0][1] if len(told) == 1 else f"{told[0][0]}: {told[0][1]}",
            rows=tuple(name for name, _ in told),
        )
        for what, told in found.items()
    ]
    return [*_stated(rows, stated), *merged]


def _stated(rows: Sequence[Row], stated: Mapping[str, Any]) -> Iterator[Convention]:
    """What the config says, rather than the numbers."""
    if stated.get("quant_method") == "gptq" and rows:
        second = stated.get("checkpoint_format") == "gptq_v2"
        what = (
            "GPTQ's second convention: zero points are stored as they are"
            if second
            else "GPTQ's first convention: zero points are stored less one"
        )
        said = stated.get("checkpoint_format")
        evidence = f"checkpoint_format is {said!r}" if said else "no checkpoint_format is stated"
        yield Convention(what=what, evidence=evidence)
    if stated.get("quant_method") == "compressed-tensors" and "version" not in stated:
        yield Convention(
            what="not written by compressed-tensors itself",
            evidence="quantization_config has no version, which compressed-tensors always writes",
        )


def _negative(row: Row) -> Iterator[tuple[str, str]]:
    found = row.figures
    if not found.negative:
        return
    share = percent(found.negative / found.scales)
    if row.format.grid.type == "int" and row.format.grid.symmetric:
        low = -(1 << (row.format.grid.num_bits - 1))
        yield (
            f"signed scales: the code {low} is on the side that needs it (auto-round's symmetric "
            "integers, GGUF's Q4_0)",
            f"{share} of the scales are negative, {percent(found.low_codes / found.weights)} of "
            f"the codes are {low}",
        )
    else:
        yield "negative scales", f"{share} of the scales are negative"


def _integer_range(row: Row) -> Iterator[tuple[str, str]]:
    """Which range a symmetric integer grid was laid over: from the codes at both ends."""
    grid, found = row.format.grid, row.figures
    if grid.type != "int" or not grid.symmetric or found.negative or found.zero_points:
        return
    half = 1 << (grid.num_bits - 1)
    full = sum(found.largest.values())
    if full < ENOUGH:
        return
    low, high = found.largest[float(half)], found.largest[float(half - 1)]
    if low + high < 0.98 * full:
        return
    if low == 0:
        yield (
            f"symmetric integers over ±{half - 1}: the code {-half} is never used",
            f"the largest code is ±{half - 1} in {percent(high / full)} of {full} blocks",
        )
    elif 0.3 < low / full < 0.7:
        yield (
            f"symmetric integers over ±{half - 0.5}: the largest weight is half a step beyond the "
            f"code {half - 1}, or rounds to {-half} (compressed-tensors)",
            f"{percent(low / full)} of {full} blocks use {-half}, the others end at {half - 1}",
        )


def _zero_points(row: Row) -> Iterator[tuple[str, str]]:
    points = row.figures.zero_points
    if points is not None and points[0] == points[1]:
        yield "zero points that are all the same", f"all are {points[0]}"


def _order(row: Row) -> Iterator[tuple[str, str]]:
    if row.figures.ordered:
        yield (
            "activation order: the columns of a group are no neighbours",
            f"g_idx of {counted(row.figures.ordered, 'module')} is not in runs",
        )


def _empty(row: Row) -> Iterator[tuple[str, str]]:
    """The scale that a block of zeros was given, in weights that are not all zero."""
    grid, found = row.format.grid, row.figures
    if not found.empty:
        return
    total = sum(found.empty.values())
    values = ", ".join(f"{number(v, 6)} ({n})" for v, n in found.empty.most_common(3))
    what = "blocks of zeros"
    if grid.strategy == "tensor_group":
        (value, _), *_ = found.empty.most_common(1)
        writer = NVFP4_EMPTY.get(value)
        what += f" with the scale {number(value, 6)}" + (
            f", as {writer} stores it" if writer else ""
        )
    yield what, f"{counted(total, 'block')} of {found.scales}, with the scales {values}"


NVFP4_EMPTY = {0.125: "compressed-tensors", 1.0: "ModelOpt", 2.0**-6: "torchao", 0.0: "auto-round"}
"""The stored scale of an NVFP4 block of zeros -> who stores it so."""


def _negative_zeros(row: Row) -> Iterator[tuple[str, str]]:
    found = row.figures
    if found.negative_zeros and row.format.grid.num_bits == 4:
        share = percent(found.negative_zeros / max(1, found.zeros))
        yield "FP4 zeros with a sign (code 8)", f"{share} of {found.zeros} zeros"


def _tensor_scale(row: Row) -> Iterator[tuple[str, str]]:
    """Whether the second scale of NVFP4 was made from the largest weight."""
    grid, found = row.format.grid, row.figures
    if grid.strategy != "tensor_group" or not found.top_scales:
        return
    full = sum(top == E4M3_LARGEST for top in found.top_scales)
    count = len(found.top_scales)
    evidence = f"the largest block scale is 448 in {full} of {counted(count, 'module')}"
    divides = "global_scale" in row.format.layout or "nvfp4-pack" in row.format.layout
    name = "2688 / amax, a divisor" if divides else "amax / 2688, a factor"
    if full:
        yield f"the tensor's scale is {name}", evidence
    else:
        yield (
            f"the tensor's scale is not {name}: shared with a larger weight, or of another range",
            evidence,
        )


def _float_range(row: Row) -> Iterator[tuple[str, str]]:
    """Whether the largest weight of each FP8 scale has the largest code."""
    grid, found = row.format.grid, row.figures
    full = sum(found.largest.values())
    if grid.type != "float" or grid.num_bits != 8 or grid.scale_dtype is not None or not full:
        return
    if grid.strategy == "tensor" and full < len(row.modules):
        return
    share = found.largest[E4M3_LARGEST] / full
    if share > 0.9:
        yield "FP8 scales are amax / 448", f"{percent(share)} of {full} scales have a code 448"
    elif full >= ENOUGH:
        top: Counter[float] = found.largest
        yield (
            "FP8 scales that leave the largest codes unused",
            f"{percent(share)} of {full} scales have a code 448; most often the largest is "
            f"{number(top.most_common(1)[0][0])}",
        )


def _microscales(row: Row) -> Iterator[tuple[str, str]]:
    """The rule that chose the powers of two of MX blocks, from the largest codes of blocks."""
    grid = row.format.grid
    if grid.scale_dtype != "uint8":
        return
    told = block_rule(row.figures.largest, grid.num_bits)
    if told is not None:
        yield told


def _small_scales(row: Row) -> Iterator[tuple[str, str]]:
    found = row.figures
    if found.denormal:
        yield (
            f"denormal scales ({row.scale_dtype}), which some hardware takes for 0",
            f"{found.denormal} of {found.scales}",
        )
    if found.wrong:
        yield "scales that are not finite", f"{found.wrong} of {found.scales}"


RULES = (
    _negative,
    _integer_range,
    _zero_points,
    _order,
    _empty,
    _negative_zeros,
    _tensor_scale,
    _float_range,
    _microscales,
    _small_scales,
)
