"""Reuse of results among the jobs of a sweep, and the time that it saved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

Result = Mapping[str, Any]
Work = dict[str, float]

COUNTS = ("needed", "built", "shared", "earlier")


def sharing(results: Mapping[int, Result]) -> dict[str, Any]:
    """The section `sharing` of sweep.json, from result.json by job.

    A node that one job built and another reused is `shared`: each reuse saves the seconds of
    building it. One that no job of the sweep built is counted as `earlier`; the results themselves
    report what that saved. `built_twice` names results that two jobs built: a job was killed, or
    the store has no locks.
    """
    built = seconds_built(results)
    kinds: dict[str, Work] = defaultdict(lambda: dict.fromkeys(COUNTS, 0) | _ZERO)
    builders: dict[str, list[str]] = defaultdict(list)
    for node in nodes(results):
        row = kinds[node["kind"]]
        row["needed"] += 1
        if node["status"] == "built":
            row["built"] += 1
            row["seconds_built"] += node["seconds"]
            builders[node["key"]].append(node["name"])
        elif node["key"] in built:
            row["shared"] += 1
            row["seconds_saved"] += built[node["key"]]
        else:
            row["earlier"] += 1
    rows = [{"kind": kind, **rounded(row)} for kind, row in kinds.items()]
    saved = sum(row["seconds_saved"] for row in kinds.values())
    reported = sum(result.get("reuse", {}).get("seconds_saved", 0.0) for result in results.values())
    return {
        **{name: sum(int(row[name]) for row in kinds.values()) for name in COUNTS},
        "seconds_built": round(sum(row["seconds_built"] for row in kinds.values()), 3),
        "seconds_saved": round(saved, 3),
        "seconds_saved_earlier": round(max(0.0, reported - saved), 3),
        "built_twice": sorted(names[0] for names in builders.values() if len(names) > 1),
        "kinds": sorted(rows, key=lambda row: -row["seconds_built"] - row["seconds_saved"]),
    }


_ZERO = {"seconds_built": 0.0, "seconds_saved": 0.0}


def nodes(results: Mapping[int, Result]) -> Iterator[Mapping[str, Any]]:
    for result in results.values():
        yield from result.get("nodes", ())


def seconds_built(results: Mapping[int, Result]) -> dict[str, float]:
    """Key -> seconds, of the results that jobs of this sweep built."""
    return {n["key"]: n["seconds"] for n in nodes(results) if n["status"] == "built"}


def rounded(row: Work) -> Work:
    return {name: round(value, 3) for name, value in row.items()}
