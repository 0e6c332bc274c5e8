"""Workers of a run: what each built, how long it was busy, and how long it waited for work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.timeline import Span, extent


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerLane:
    """A worker's nodes as spans of the run's time, with its entry of result.json's `workers`."""

    facts: Mapping[str, Any]
    spans: Sequence[Span]


def workers(nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The entries `workers` of result.json, from its `nodes`: none where one process did it all.

    Idle is the time in which a worker built nothing, from the first node that any of them began to
    the last that ended.
    """
    by_worker = _by_worker(nodes)
    spans = [_span(node) for rows in by_worker.values() for node in rows]
    whole = max((end for _, end in spans), default=0.0) - min((at for at, _ in spans), default=0.0)
    found = []
    for name, rows in sorted(by_worker.items()):
        busy = sum(node["seconds"] for node in rows)
        found.append(
            {
                "name": name,
                "nodes": len(rows),
                "busy_seconds": round(busy, 3),
                "idle_seconds": round(max(0.0, whole - busy), 3),
            }
        )
    return found


def worker_lanes(result: Mapping[str, Any]) -> list[WorkerLane]:
    """A lane for each worker of a result, an old one included, which has none."""
    whole, _ = extent(result["nodes"])
    by_worker = _by_worker(result["nodes"])
    return [
        WorkerLane(
            facts=facts,
            spans=[
                Span(
                    start=node["started"] / whole,
                    width=node["seconds"] / whole,
                    title=f"{node['name']}, {node['seconds']:.2f} s",
                )
                for node in by_worker.get(facts["name"], ())
            ],
        )
        for facts in result.get("workers", ())
    ]


def _by_worker(nodes: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for node in nodes:
        if node.get("worker") and node["status"] == "built":
            found.setdefault(node["worker"], []).append(node)
    return found


def _span(node: Mapping[str, Any]) -> tuple[float, float]:
    return node["started"], node["started"] + node["seconds"]
