"""A made-up sweep folder, as the jobs of a sweep leave it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.sweeps.jobs import JobRecord, JobStatus
from pipeline.sweeps.plan import BASIC, SweepPlan

STARTED = 1_700_000_000.0
SCHEMES = ("w4a16", "w8a16", "nvfp4", "fp8_dynamic")


def node(name: str, key: str, status: str = "built", seconds: float = 1.0) -> dict[str, Any]:
    return {
        "name": name,
        "kind": name.partition("[")[0],
        "key": key,
        "keys": {"out": key},
        "status": status,
        "started": 0.0,
        "seconds": seconds if status == "built" else 0.0,
        "peak_rss_bytes": 0,
        "bytes": 10,
    }


def result(
    size: int,
    perplexity: float | None,
    nodes: list[dict[str, Any]] | None = None,
    *,
    saved: float = 0.0,
    **more: Any,
) -> dict[str, Any]:
    """A result.json with what a leaderboard looks at."""
    evaluated: dict[str, Any] = {}
    if perplexity is not None:
        evaluated = {
            "perplexity": {"original": 20.0, "compressed": perplexity, "tokens": 9},
            "kl": 0.07,
            "top1_agreement": 0.9,
        }
    return {
        "schema": 1,
        "status": "ok",
        "error": None,
        "checkpoint": None,
        "seconds": 7.0,
        "nodes": nodes or [],
        "layers": [{"name": "a", "relative_error": 0.01}, {"name": "b", "relative_error": 0.03}],
        "size": {"original_bytes": 1000, "compressed_bytes": size, "bits_per_weight": 4.5},
        "eval": evaluated,
        "reuse": {"hits": 0, "seconds_saved": saved},
        "timings": {"save": {"seconds": 1.5, "built": 1, "reused": 0}},
        **more,
    }


def plan(folder: Path, jobs: list[tuple[str, ...]], **more: Any) -> SweepPlan:
    made = SweepPlan(
        folder=folder,
        command="python -m pipeline -m scheme=...",
        sweeper=BASIC,
        launcher="basic_launcher",
        started=STARTED,
        jobs=tuple(jobs),
        count=len(jobs),
        **more,
    )
    made.write()
    return made


def job(
    sweep: Path,
    number: int,
    overrides: tuple[str, ...],
    found: dict[str, Any] | None,
    *,
    config: dict[str, Any] | None = None,
    status: JobStatus = "ok",
    error: str | None = None,
) -> None:
    """Leave what one job leaves."""
    folder = sweep / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    JobRecord(
        number=number,
        overrides=overrides,
        folder=str(folder),
        status=status,
        started=STARTED + 10 * number,
        seconds=8.0,
        error=error,
        host="here",
        pid=77,
    ).write(sweep)
    if found is not None:
        (folder / "result.json").write_text(json.dumps(found))
    if config is not None:
        (folder / "config.yaml").write_text(json.dumps(config))


def four_schemes(sweep: Path) -> None:
    """Four jobs, of which the last failed; the first two share a node."""
    words = [(f"scheme={name}", "calibrate.propagate=original") for name in SCHEMES]
    plan(sweep, [*words, ("scheme=never", "calibrate.propagate=original")])
    built = [node("calibrate[0]", "aa", seconds=5.0), node("compress[0]", "bb", seconds=2.0)]
    shared = [node("calibrate[0]", "aa", "hit"), node("compress[0]", "cc", seconds=3.0)]
    config = {"scheme": {"weights": {"num_bits": 4}}, "store": {"dir": "s"}}
    wide = {"scheme": {"weights": {"num_bits": 8}}, "store": {"dir": "s"}}
    job(sweep, 0, words[0], result(300, 22.0, built), config=config)
    job(sweep, 1, words[1], result(500, 20.5, shared, saved=6.0), config=wide)
    job(sweep, 2, words[2], result(400, 24.0), config=config)
    job(sweep, 3, words[3], None, status="failed", error="calibrate[0]: <b>odd</b> data")
