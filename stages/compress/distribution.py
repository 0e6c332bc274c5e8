"""How the entries of a weight, and of its rounding error, are distributed: for a picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BINS = 41
ROWS = 64
"""Rows that are counted, evenly spaced: enough for a picture, next to nothing in time."""
KEPT = 2
"""Modules of a layer whose distributions are kept: those with the largest relative error."""


def distributions(weight: Tensor, quantized: Tensor) -> dict[str, Any]:
    """Counts of the entries of `weight` and of `weight - quantized`, both [out, in]."""
    rows = torch.linspace(0, len(weight) - 1, min(ROWS, len(weight)), dtype=torch.float64).long()
    w = weight[rows.to(weight.device)].float().cpu()
    return {
        "weight": counted(w),
        "error": counted(w - quantized[rows.to(quantized.device)].float().cpu()),
    }


def counted(values: Tensor) -> dict[str, Any]:
    """`counts` of values in `BINS` equal bins from -`edge` to `edge`, the largest magnitude."""
    edge = float(values.abs().max()) if values.numel() else 0.0
    if edge == 0:
        return {"edge": edge, "counts": []}
    counts = torch.histc(values, bins=BINS, min=-edge, max=edge)
    return {"edge": edge, "counts": list(map(int, counts.tolist()))}


def worst(rows: list[dict[str, Any]], found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The distributions of the modules of a layer with the largest errors, the worst first."""
    known = [r for r in rows if r["name"] in found and r["relative_error"] is not None]
    known.sort(key=lambda row: (-row["relative_error"], row["name"]))
    return [
        {"name": r["name"], "relative_error": r["relative_error"], **found[r["name"]]}
        for r in known[:KEPT]
    ]
