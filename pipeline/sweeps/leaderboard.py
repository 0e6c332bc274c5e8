"""Leaderboard of a sweep, sweep.json: stable, versioned, with the keys its jobs differ in.

schema, status ok|failed|unfinished, command, sweeper, launcher, started, seconds
    objective   [{path, direction}]          the sweeper's objectives, if it has any
    quality     {path, name, direction}      the metric that ranks the jobs; null: no job has it
    original    {<metric> ..., quality}      the model before the run; null where unknown
    jobs        [{number, status ok|failed|interrupted|missing, error, overrides, differs, folder,
                  report, checkpoint, started, seconds, built, reused, <metric> ..., quality,
                  objective, front}]
    best        number of the job with the best quality; null
    front       [number]                     the Pareto front of cost and quality, by cost
    differing   {by_override: [key], by_config: {key: {number: value}}}
    sharing     {needed, built, shared, earlier, seconds_built, seconds_saved,
                 seconds_saved_earlier, built_twice [node],
                 kinds [{kind, needed, built, shared, earlier, seconds_built, seconds_saved}]}

`differs` has the job's own values of the overrides in which jobs differ. `folder` is relative to
the sweep's folder where it is below it. A job without a record, or whose process died, is
`missing`. Numbers that a job does not have are null. The metrics, `<cost>` among them, are those
of the registered report sections under their `field` (presswork's stages give size_bytes, ...).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.nested import leaves, number_at
from pipeline.report.files import REPORT
from pipeline.report.section import Metric, cost_metric, metrics
from pipeline.sweeps.jobs import Job, Sweep
from pipeline.sweeps.pareto import front, quality
from pipeline.sweeps.reuse import Result, sharing

Values = Mapping[int, Mapping[str, Any]]
"""Job -> dotted key -> value."""

WIRING = ("graph.nodes", "graph.wiring", "graph.roles")
"""Sections that follow from the choice of `graph`, which is among the overrides."""


def by_override(overrides: Mapping[int, Sequence[str]]) -> Values:
    """The overrides of each job that differ, as they were written: `scheme` -> `w4a16`."""
    values = {
        job: {key.lstrip("+~"): value for key, _, value in (word.partition("=") for word in words)}
        for job, words in overrides.items()
    }
    return only_differing(values)


def by_config(configs: Mapping[int, Mapping[str, Any]]) -> Values:
    """The keys of the resolved configs that differ, without the wiring of the graph."""
    flat = {
        job: {".".join(path): value for path, value in leaves(config)}
        for job, config in configs.items()
    }
    return {
        job: {key: value for key, value in values.items() if not key.startswith(WIRING)}
        for job, values in only_differing(flat).items()
    }


def only_differing(values: Values) -> dict[int, dict[str, Any]]:
    """`values` without the keys that have the same value in all jobs, in order of appearance.

    A job that lacks a key of another one differs in it, and has no entry for it.
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


SCHEMA = 1


def assemble(sweep: Sweep) -> dict[str, Any]:
    """All of sweep.json as plain JSON data, from the records and results of the jobs."""
    plan = sweep.plan
    results = {job.number: job.result for job in sweep.jobs if job.result is not None}
    objective = plan.objective if plan else ()
    directions = plan.directions if plan else ()
    by = quality(list(results.values()), objective, directions)
    overrides = by_override({job.number: job.overrides for job in sweep.jobs})
    configs = {job.number: job.config for job in sweep.jobs if job.config}
    rows = [_row(job, overrides.get(job.number, {}), by, objective) for job in sweep.jobs]
    done = {row["number"]: row for row in rows if row["status"] == "ok"}
    across = cost_metric()
    points = {
        number: (row[across.field], row["quality"])
        for number, row in done.items()
        if across and row[across.field] is not None and row["quality"] is not None
    }
    pareto = front(points, by) if by else []
    for row in rows:
        row["front"] = row["number"] in pareto
    return {
        "schema": SCHEMA,
        "status": _status(rows),
        "command": plan.command if plan else "",
        "sweeper": plan.sweeper if plan else "",
        "launcher": plan.launcher if plan else "",
        "started": _moment(sweep.started),
        "seconds": round(sweep.seconds, 3),
        "objective": [
            {"path": path, "direction": direction}
            for path, direction in zip(objective, _padded(directions, len(objective)), strict=True)
        ],
        "quality": {"path": by.path, "name": by.label, "direction": by.direction} if by else None,
        "original": _original(results, across, by),
        "jobs": rows,
        "best": _best(done, by),
        "front": pareto,
        "differing": {
            "by_override": list(dict.fromkeys(key for each in overrides.values() for key in each)),
            "by_config": _by_key(by_config(configs)),
        },
        "sharing": sharing(results),
    }


def _row(
    job: Job, differs: Mapping[str, Any], by: Metric | None, objective: tuple[str, ...]
) -> dict[str, Any]:
    result = job.result or {}
    nodes = result.get("nodes", ())
    hits = sum(node["status"] == "hit" for node in nodes)
    return {
        "number": job.number,
        "status": job.status,
        "error": job.error,
        "overrides": list(job.overrides),
        "differs": dict(differs),
        "folder": job.shown_folder,
        "report": f"{job.shown_folder}/{REPORT}" if job.result is not None else None,
        "checkpoint": result.get("checkpoint"),
        "started": _moment(job.started),
        "seconds": round(job.seconds, 3) if job.seconds else None,
        "built": len(nodes) - hits,
        "reused": hits,
        **{metric.field: metric.of(result) for metric in metrics()},
        "quality": by.of(result) if by else None,
        "objective": {path: number_at(result, path) for path in objective},
        "front": False,
    }


def _status(rows: list[dict[str, Any]]) -> str:
    states = {row["status"] for row in rows}
    if not states & {"missing", "interrupted"}:
        return "failed" if "failed" in states else "ok"
    return "unfinished"


def _best(done: Mapping[int, Mapping[str, Any]], by: Metric | None) -> int | None:
    rated = {number: row["quality"] for number, row in done.items() if row["quality"] is not None}
    if by is None or not rated:
        return None
    sign = 1 if by.direction == "minimize" else -1
    return min(rated, key=lambda number: (sign * rated[number], number))


def _original(
    results: Mapping[int, Result], across: Metric | None, by: Metric | None
) -> dict[str, Any] | None:
    """The metrics of the model before the run, those in which all jobs agree; None without cost."""
    if across is None:
        return None

    def agreed(path: str) -> float | None:
        values = {number_at(result, path) for result in results.values()} - {None}
        return values.pop() if path and len(values) == 1 else None

    found = {metric.field: agreed(metric.original) for metric in metrics()}
    if found[across.field] is None:
        return None
    known = {name: value for name, value in found.items() if value is not None}
    return {**known, "quality": agreed(by.original) if by else None}


def _by_key(values: Mapping[int, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    keys = dict.fromkeys(key for each in values.values() for key in each)
    return {
        key: {str(job): each[key] for job, each in values.items() if key in each} for key in keys
    }


def _padded(directions: tuple[str, ...], length: int) -> tuple[str, ...]:
    return (*directions, *[""] * length)[:length]


def _moment(seconds: float) -> str | None:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds)) if seconds else None
