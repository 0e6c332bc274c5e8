"""Roles of nodes in the graph that components ask for, such as a modifier that adds a node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pipeline.registry import Registry


def wire(cfg: DictConfig, registry: Registry) -> None:
    """Set the names of `graph.roles` that registered classes of the config's components ask for.

    A class says so with `roles`, a mapping: with {"blueprint": "rotate"}, whatever the graph wires
    by ${graph.roles.blueprint} reads the node `rotate`. A graph without that name stays as it is.
    """
    roles = OmegaConf.select(cfg, "graph.roles")
    if not OmegaConf.is_dict(roles):
        return
    raw = OmegaConf.to_container(cfg, resolve=False)
    for group in registry.entries:
        for kind in _kinds(raw, group):
            if kind in registry.kinds(group):
                asked: Mapping[str, str] = getattr(registry.get(group, kind), "roles", {})
                roles.update({name: node for name, node in asked.items() if name in roles})


def _kinds(raw: Any, group: str) -> Iterator[str]:
    """The kinds of the components that a section has by name."""
    section = raw.get(group) if isinstance(raw, Mapping) else None
    for part in section.values() if isinstance(section, Mapping) else ():
        kind = part.get("kind") if isinstance(part, Mapping) else None
        if isinstance(kind, str):
            yield kind
