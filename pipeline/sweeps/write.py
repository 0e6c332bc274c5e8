"""Making sweep.json and sweep.html of what lies in a sweep's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.sweeps.files import PAGE, SWEEP, write_json, write_text
from pipeline.sweeps.jobs import read_sweep
from pipeline.sweeps.leaderboard import assemble
from pipeline.sweeps.page import render


def write_sweep(folder: Path) -> dict[str, Any]:
    """Write both files into the sweep's folder; returns the content of sweep.json.

    Raises UserError where the folder holds neither a sweep nor a run.
    """
    sweep = assemble(read_sweep(folder))
    write_json(folder / SWEEP, sweep)
    write_text(folder / PAGE, render(sweep))
    return sweep
