"""Sites of a graph: each entry of `graph.nodes` with its stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.stage import Stage


@dataclass(frozen=True, kw_only=True, slots=True)
class SitePlan:
    """A site with its stage made from its params."""

    name: str
    stage: Stage
    each: str | None
    inputs: Mapping[str, str]
    final: bool
    publish: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphPlan:
    """The sites of a run by name."""

    sites: Mapping[str, SitePlan]
