"""Difference between a run and the last one of the same experiment."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.nested import leaves
from pipeline.report.progress import site_of
from pipeline.runs.config_file import config_of
from pipeline.runs.folders import Run

IRRELEVANT = frozenset(
    "mode gc ls plan key runs report checkpoint store sweep objective tracker".split()
)
"""Sections of the config that do not affect the result."""

ABSENT = "(absent)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """`keys`: key -> (then, now). `sites`: site -> its nodes that are same, other, new, gone.

    Without the nodes that are not needed now.
    """

    keys: Mapping[str, tuple[Any, Any]]
    sites: Mapping[str, Mapping[str, int]]


def last_alike(runs: Iterable[Run], config: Mapping[str, Any]) -> Run | None:
    """The newest run of the same experiment, or of the same model if no experiment is named.

    A mode=sensitivity is no such run: it builds other nodes.
    """
    newest = sorted(runs, key=lambda run: _written(run.folder), reverse=True)
    for run in newest:
        previous = config_of(run.folder)
        if previous is None or previous.get("mode", "run") != "run":
            continue
        if previous.get("experiment") != config.get("experiment"):
            continue
        if config.get("experiment") or previous.get("model") == config.get("model"):
            return run
    return None


def difference(
    folder: Path, config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> Difference:
    """The difference from the run in `folder` to this resolved config and the rows of its plan."""
    return Difference(
        keys=_keys(config_of(folder) or {}, config), sites=_sites(_rows(folder), rows)
    )


def summarized(keys: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """The same in fewer lines, what a user says first.

    A section that only one side has is one line, with its keys counted; the graph comes last.
    """
    found: dict[str, tuple[Any, Any]] = {}
    sections: dict[tuple[str, bool], list[str]] = {}
    for key, (then, now) in keys.items():
        if ABSENT in (then, now) and "." in key:
            section = ".".join(key.split(".")[:2])
            sections.setdefault((section, then == ABSENT), []).append(key)
    whole = {key for group in sections.values() if len(group) > 1 for key in group}
    for key, (then, now) in keys.items():
        if key not in whole:
            found[key] = (then, now)
            continue
        section = ".".join(key.split(".")[:2])
        count = f"{len(sections[section, then == ABSENT])} keys"
        found[f"{section}.*"] = (ABSENT, count) if then == ABSENT else (count, ABSENT)
    return dict(sorted(found.items(), key=lambda item: item[0].startswith("graph.")))


def _keys(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    before, after = _flat(then), _flat(now)
    return {
        name: (before.get(name, ABSENT), after.get(name, ABSENT))
        for name in sorted(before.keys() | after.keys())
        if before.get(name, ABSENT) != after.get(name, ABSENT)
    }


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in config.items() if k not in IRRELEVANT and k != "defaults"}
    return {".".join(path): value for path, value in leaves(kept)}


def _sites(
    then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, int]]:
    before, after = ({row["name"]: row["keys"] for row in rows} for rows in (then, now))
    idle = {row["name"] for row in now if row.get("status") == "idle"}
    counts: dict[str, dict[str, int]] = {}
    for name in [*after, *(name for name in before if name not in after)]:
        if name in idle:
            continue
        row = counts.setdefault(site_of(name)[0], {"same": 0, "other": 0, "new": 0, "gone": 0})
        if name not in before:
            row["new"] += 1
        elif name not in after:
            row["gone"] += 1
        else:
            row["same" if before[name] == after[name] else "other"] += 1
    return counts


def _rows(folder: Path) -> list[Mapping[str, Any]]:
    try:
        rows = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return list(rows)


def _written(folder: Path) -> float:
    return (folder / "config.yaml").stat().st_mtime
