"""Headline of a run: its model, scheme, solver and calibration data, from result and config."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from pipeline.report.section import Config, Result

SOURCES = ("id", "path", "package", "name")
"""Keys of a model or dataset that say where it comes from, the plainest first."""


def headline(result: Result, config: Config) -> list[tuple[str, str]]:
    """Model, scheme, solver and data, each if the run has it."""
    told = {
        "model": _named(config.get("model")),
        "scheme": _scheme(result),
        "solver": _solver(result, config),
        "data": _data(config.get("dataset")),
    }
    return [(name, value) for name, value in told.items() if value]


def _named(section: Any) -> str:
    """The name of a model or dataset, such as `org/name` or the last part of a path."""
    if not isinstance(section, Mapping):
        return ""
    found = next((str(section[key]) for key in SOURCES if section.get(key)), "")
    if section.get("path") and not section.get("id"):
        found = PurePath(found).name
    if section.get("file"):
        found = PurePath(str(section["file"])).name
    revision = section.get("revision")
    more = f" @ {revision}" if revision and revision != "main" else ""
    return f"{found}{more}" or str(section.get("kind", ""))


def _scheme(result: Result) -> str:
    """The formats of the quantized modules, the most frequent first."""
    counts = Counter(str(row["scheme"]) for row in result.get("layers", ()) if row.get("scheme"))
    shown = counts.most_common(3)
    more = len(counts) - len(shown)
    told = ", ".join(f"{name} ({count} modules)" for name, count in shown)
    return f"{told} and {more} more" if more else told


def _solver(result: Result, config: Config) -> str:
    """The modifiers in order; without any, the solvers that the layers say."""
    modifiers = config.get("modifier")
    kinds = (
        [
            str(each.get("kind", name))
            for name, each in modifiers.items()
            if isinstance(each, Mapping)
        ]
        if isinstance(modifiers, Mapping)
        else []
    )
    solvers = dict.fromkeys(
        str(row["solver"]) for row in result.get("layers", ()) if row.get("solver")
    )
    return ", ".join(kinds or solvers)


def _data(section: Any) -> str:
    """The calibration data and how much of it."""
    if not isinstance(section, Mapping):
        return ""
    named = _named({**section, "revision": None})
    if section.get("kind") == named or not named:
        named = str(section.get("kind", ""))
    count, length = section.get("num_samples"), section.get("sequence_length")
    more = f", {count} samples of {length} tokens" if count and length else ""
    seed = section.get("seed")
    return f"{named}{more}" + ("" if seed is None else f", seed {seed}")
