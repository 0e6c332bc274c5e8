"""The report section of a saved checkpoint: its size and its bits per weight.

It shows `size` of result.json: {original_bytes, compressed_bytes, bits_per_weight}.
"""

from __future__ import annotations

from pipeline.report.section import Metric, Result, Row, Section
from pipeline.report.units import number, size


def rows(result: Result) -> list[Row]:
    """Size and bits per weight before and after, if a checkpoint was saved."""
    sizes = result["size"]
    if not sizes:
        return []
    before, after = sizes["original_bytes"], sizes["compressed_bytes"]
    original = sizes.get("original_bits_per_weight")
    return [
        Row(
            what="size",
            before=size(before),
            after=size(after),
            change=f"{before / after:.2f} x smaller" if after else "",
        ),
        Row(
            what="bits per weight",
            before=number(original) if original else "",
            after=number(sizes.get("bits_per_weight")),
            change="",
        ),
    ]


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
