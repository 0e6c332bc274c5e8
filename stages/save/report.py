"""The report section of a saved checkpoint: its size and its bits per weight.

It shows `size` of result.json: {original_bytes, compressed_bytes, bits_per_weight (of the weights
that were compressed, with scales and zero points; null: none were), whole_bits_per_weight,
original_bits_per_weight (of the whole model)}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.report.section import Metric, Result, Row, Section
from pipeline.report.units import number, size


def rows(result: Result) -> list[Row]:
    """Size and bits per weight before and after, if a checkpoint was saved."""
    sizes = result["size"]
    if not sizes:
        return []
    pair = sizes["original_bytes"], sizes["compressed_bytes"]
    found = [Row.of("size", *pair, size, smaller)]
    original, bits = sizes.get("original_bits_per_weight"), sizes.get("bits_per_weight")
    before = "" if original is None else number(original)
    if "whole_bits_per_weight" not in sizes:  # a result of before there were two
        return [*found, Row(what=WHOLE, before=before, after=number(bits))]
    if bits is not None:
        found.append(Row(what="bits per weight, compressed weights", after=number(bits)))
    whole = number(sizes["whole_bits_per_weight"])
    return [*found, Row(what=WHOLE, before=before, after=whole)]


WHOLE = "bits per weight, whole model"


def verdict(result: Result, config: Mapping[str, Any]) -> list[str]:
    """How much smaller the checkpoint is."""
    del config
    sizes = result["size"]
    if not sizes:
        return []
    pair = sizes["original_bytes"], sizes["compressed_bytes"]
    return [f"{smaller(*pair)} ({size(pair[0])} to {size(pair[1])})"]


def smaller(before: float | None, after: float | None) -> str:
    """By what factor it has shrunk."""
    return f"{before / after:.2f} x smaller" if before is not None and after else ""


def pushed(result: Result, config: Mapping[str, Any]) -> list[str]:
    """Where the checkpoint was sent."""
    del config
    push = result.get("push")
    return [f"sent to {push['repo']}, commit {push['commit'][:7]}"] if push else []


PUSH = Section(order=810, mappings=("push",), verdict=pushed)
"""It shows `push` of result.json: {repo, revision, commit, url}, of a checkpoint that was sent."""

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
    verdict=verdict,
)
