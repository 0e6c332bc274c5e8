"""The same compressions in both programs, on the same model and tokens."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.launch import launch
from tests.benchmarks.memory import text_of_bytes
from tests.differential.cases import Case
from tests.jobs import Job

BATCH = 2
SCRIPT = Path(__file__).with_name("peer.py")


def ours(model: Path, cases: Sequence[Case], work: Path) -> dict[str, Path]:
    """Checkpoints of presswork by name of the case; all share a store."""
    work.mkdir(parents=True, exist_ok=True)
    job = Job(folder=work, model=model, text=text_of_bytes(work / "text.txt", 20_000))
    for case in cases:
        job.run(
            case.name,
            *case.ours,
            "modifier=rtn",
            "calibrate.propagate=original",
            f"calibrate.batch_size={BATCH}",
        )
    return {case.name: work / case.name / "checkpoint" for case in cases}


def theirs(
    model: Path, cases: Sequence[Case], work: Path, *, store: Path, routers: bool
) -> dict[str, Path]:
    """Checkpoints of the peer; calibrated cases see the tokens that lie in presswork's `store`."""
    work.mkdir(parents=True, exist_ok=True)
    tokens = next(store.rglob("tokens.safetensors"), None)
    if tokens is None and any(case.data for case in cases):
        raise FileNotFoundError(f"{store} holds no tokens")
    jobs = [
        {
            "model": str(model),
            "out": str(work / case.name),
            "preset": case.preset,
            "groups": case.groups,
            "format": case.format,
            "tokens": str(tokens) if case.data else None,
            "batch_size": BATCH,
            "routers": routers,
        }
        for case in cases
    ]
    (work / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    launch([os.environ["PRESSWORK_PEER_PYTHON"], str(SCRIPT), str(work / "jobs.json")], sampling=1)
    return {case.name: work / case.name for case in cases}
