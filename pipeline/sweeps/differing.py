"""In which keys the jobs of a sweep differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.references import leaves

Values = Mapping[int, Mapping[str, Any]]
"""Job -> dotted key -> value."""

WIRING = ("graph.nodes", "graph.wiring")
"""Sections that follow from a choice of `graph`, which is among the overrides."""


def by_override(overrides: Mapping[int, Sequence[str]]) -> Values:
    """What the command line says of each job, as it was written: `scheme` -> `w4a16`."""
    said = {
        job: {key.lstrip("+~"): value for key, _, value in (word.partition("=") for word in words)}
        for job, words in overrides.items()
    }
    return only_differing(said)


def by_config(configs: Mapping[int, Mapping[str, Any]]) -> Values:
    """The keys of resolved configs that differ, without those that wire the graph."""
    flat = {
        job: {".".join(path): value for path, value in leaves(config)}
        for job, config in configs.items()
    }
    return {
        job: {key: value for key, value in values.items() if not key.startswith(WIRING)}
        for job, values in only_differing(flat).items()
    }


def only_differing(values: Values) -> dict[int, dict[str, Any]]:
    """The same without the keys that have one value in all jobs, in the order of first sight.

    A job that lacks a key which another has differs from it, and has no entry for it.
    """
    if not values:
        return {}
    keys = dict.fromkeys(key for each in values.values() for key in each)
    absent = object()
    first = next(iter(values.values()))
    differing = [
        key
        for key in keys
        if any(each.get(key, absent) != first.get(key, absent) for each in values.values())
    ]
    return {job: {k: each[k] for k in differing if k in each} for job, each in values.items()}
