"""The report section of a saved checkpoint: its size and its bits per weight.

It shows `size` of result.json: {original_bytes, compressed_bytes, bits_per_weight}.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.report.section import Metric, Result, Row, Section
from pipeline.report.units import size


def rows(result: Result) -> list[Row]:
    """Size and bits per weight before and after, if a checkpoint was saved."""
    sizes = result["size"]
    if not sizes:
        return []
    pair = sizes["original_bytes"], sizes["compressed_bytes"]
    original, bits = sizes.get("original_bits_per_weight"), sizes.get("bits_per_weight")
    width = Row.of("bits per weight", original, bits)
    return [Row.of("size", *pair, size, smaller), width if original else replace(width, before="")]


def smaller(before: float | None, after: float | None) -> str:
    """By what factor it has shrunk."""
    return f"{before / after:.2f} x smaller" if before is not None and after else ""


SIZE = Section(
    order=100,
    mappings=("size",),
    metrics=(
        Metric(
            field="size_bytes",
            path="size.compressed_bytes",
            title="size",
            name="compressed size",
            role="cost",
            original="size.original_bytes",
            show=size,
            brief=True,
        ),
        Metric(
            field="bits_per_weight",
            path="size.bits_per_weight",
            title="bits/weight",
            brief=True,
        ),
    ),
    rows=rows,
)
