"""Timeline of a run: one lane for each kind of node, with a span for each node built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.units import size


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A node's time as fractions of the run, its memory and device memory of the largest."""

    start: float
    width: float
    title: str
    memory: float = 0.0
    device: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """All nodes of a kind: those built by this run as spans, those reused as a number."""

    kind: str
    spans: Sequence[Span]
    reused: int
    seconds: float
    peak_rss_bytes: int
    bytes: int
    peak_device_bytes: int | None


def lanes(nodes: Sequence[Mapping[str, Any]]) -> list[Lane]:
    """Lanes in the order in which their kinds first appear in result.json's `nodes`."""
    whole, largest = extent(nodes)
    device = device_extent(nodes) or 1
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for node in nodes:
        by_kind.setdefault(node["kind"], []).append(node)
    return [_lane(kind, rows, whole, largest, device) for kind, rows in by_kind.items()]


def storing(nodes: Sequence[Mapping[str, Any]]) -> list[Span]:
    """When results were stored, with the nodes that ran meanwhile; none for a run of before."""
    whole, _ = extent(nodes)
    return [
        Span(
            start=span["started"] / whole,
            width=span["seconds"] / whole,
            title=f"{row['name']} stored in {span['seconds']:.2f} s{_beside(span, row, nodes)}",
        )
        for row in nodes
        if (span := row.get("stored")) is not None
    ]


def _beside(
    span: Mapping[str, float], own: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]
) -> str:
    """The nodes, other than its own, that ran during a span."""
    end = span["started"] + span["seconds"]
    names = [
        node["name"]
        for node in nodes
        if node is not own
        and node["status"] == "built"
        and node["started"] < end
        and span["started"] < node["started"] + node["seconds"]
    ]
    return f" beside {', '.join(names)}" if names else ""


def extent(nodes: Sequence[Mapping[str, Any]]) -> tuple[float, int]:
    """Seconds until the last node ended, and the largest peak memory; 1 instead of 0."""
    whole = max(((n["started"] or 0.0) + n["seconds"] for n in nodes), default=0.0)
    return whole or 1.0, max((n["peak_rss_bytes"] for n in nodes), default=0) or 1


def device_extent(nodes: Sequence[Mapping[str, Any]]) -> int | None:
    """The largest peak memory of GPUs; None where no node used one, or the run is an old one."""
    found = [peak for node in nodes if (peak := node.get("peak_device_bytes")) is not None]
    return max(found, default=None)


def _lane(
    kind: str, rows: Sequence[Mapping[str, Any]], whole: float, largest: int, device: int
) -> Lane:
    built = [row for row in rows if row["status"] == "built"]
    spans = [
        Span(
            start=row["started"] / whole,
            width=row["seconds"] / whole,
            title=_title(row),
            memory=row["peak_rss_bytes"] / largest,
            device=(row.get("peak_device_bytes") or 0) / device,
        )
        for row in built
    ]
    return Lane(
        kind=kind,
        spans=spans,
        reused=len(rows) - len(built),
        seconds=sum(row["seconds"] for row in built),
        peak_rss_bytes=max((row["peak_rss_bytes"] for row in built), default=0),
        bytes=sum(row["bytes"] for row in built),
        peak_device_bytes=device_extent(built),
    )


def _title(row: Mapping[str, Any]) -> str:
    told = f"{row['name']}, {row['seconds']:.2f} s, {size(row['peak_rss_bytes'])} peak"
    device = row.get("peak_device_bytes")
    return told if device is None else f"{told}, {size(device)} on the GPU"
