"""Drawing of the graph: sites in rows by depth, with the numbers of nodes built and reused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

WIDTH, HEIGHT, GAP, RISE = 150, 40, 14, 34
"""Size of a box and the gaps between boxes, horizontal and vertical, in SVG units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A site of the graph, with its top left corner at (x, y). `again`: it feeds its successor."""

    name: str
    facts: str
    state: str
    x: float
    y: float
    again: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A drawn graph: boxes, and arrows as (x1, y1, x2, y2)."""

    boxes: Sequence[Box]
    arrows: Sequence[tuple[float, float, float, float]]
    width: float
    height: float


def picture(nodes: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> Picture | None:
    """The sites of result.json's `nodes`; None if the config has no graph."""
    built, reused = Counter[str](), Counter[str]()
    for node in nodes:
        (built if node["status"] == "built" else reused)[node["name"].partition("[")[0]] += 1
    used = built.keys() | reused.keys()
    edges, again = _edges(config, used)
    if not edges:
        return None
    try:
        order = list(TopologicalSorter(edges).static_order())
    except CycleError:
        return None
    depth: dict[str, int] = {}
    for name in order:
        depth[name] = max((depth[before] + 1 for before in edges[name]), default=0)
    rows: dict[int, list[str]] = {}
    for name in order:
        rows.setdefault(depth[name], []).append(name)
    across = max(len(row) for row in rows.values())
    width = across * (WIDTH + GAP) - GAP
    places: dict[str, tuple[float, float]] = {}
    for level, row in rows.items():
        left = (width - (len(row) * (WIDTH + GAP) - GAP)) / 2
        for place, name in enumerate(row):
            places[name] = (left + place * (WIDTH + GAP), level * (HEIGHT + RISE))
    boxes = [
        Box(
            name=name,
            facts=_facts(built[name], reused[name]),
            state="built" if built[name] else "reused",
            x=places[name][0],
            y=places[name][1],
            again=name in again,
        )
        for name in order
    ]
    arrows = [
        (places[a][0] + WIDTH / 2, places[a][1] + HEIGHT, places[b][0] + WIDTH / 2, places[b][1])
        for b, before in edges.items()
        for a in _direct(before, edges)
    ]
    return Picture(
        boxes=boxes, arrows=arrows, width=width, height=len(rows) * (HEIGHT + RISE) - RISE
    )


def _edges(config: Mapping[str, Any], used: set[str]) -> tuple[dict[str, set[str]], set[str]]:
    """Site -> the sites that feed it; and the sites that a neighbouring member feeds."""
    try:
        plain = OmegaConf.to_container(OmegaConf.create(dict(config)), resolve=True)
    except OmegaConfBaseException:  # a config of another version is no reason to fail
        return {}, set()
    sites = (plain.get("graph") or {}).get("nodes") or {} if isinstance(plain, dict) else {}
    edges: dict[str, set[str]] = {}
    again: set[str] = set()
    for name, site in sites.items():
        if name not in used:
            continue
        edges[name] = set()
        for text in (site.get("inputs") or {}).values():
            source, _, which = str(text).partition("@")
            if which in ("previous", "next"):
                again.add(name)
            elif source in used:
                edges[name].add(source)
    return edges, again


def _direct(before: set[str], edges: Mapping[str, set[str]]) -> list[str]:
    """The direct predecessors among `before`: arrows from the others would be redundant."""
    return sorted(a for a in before if not any(a in _above(b, edges) for b in before if b != a))


def _above(name: str, edges: Mapping[str, set[str]]) -> set[str]:
    seen, stack = set[str](), [name]
    while stack:
        new = edges.get(stack.pop(), set()) - seen
        seen |= new
        stack.extend(new)
    return seen


def _facts(built: int, reused: int) -> str:
    parts = [f"{built} built" if built else "", f"{reused} reused" if reused else ""]
    return ", ".join(part for part in parts if part)
