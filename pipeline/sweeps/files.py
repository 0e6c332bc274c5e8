"""Files of a sweep folder, written atomically.

jobs/plan.json   the plan of the sweep, written before the first job
jobs/N.json      the record of job N, written by the process that ran it
sweep.json       the leaderboard, made from these and the result.json of the jobs
sweep.html       the same as a page
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.report.text_files import write_text

JOBS = "jobs"
PLAN = "jobs/plan.json"
SWEEP = "sweep.json"
PAGE = "sweep.html"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None if the file is missing or has something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
