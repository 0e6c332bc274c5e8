"""What two versions of presswork build on one machine: the same keys and the same bytes.

`python -m tests.frozen.compare_builds OLD_TREE NEW_TREE` runs calibrated jobs on tiny models with
both, each tree by its own .venv/bin/python, and compares every file of the checkpoints and of all
results in the two stores. It prints a table and ends with 1 if anything differs. Sums of floating-
point numbers differ between machines, so these bytes cannot be stored in the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.frozen.models import FAMILIES, write_model
from tests.frozen.stored import differing

COMMON = (
    "device=cpu",
    "runner.threads=1",
    "runner.workers=1",
    "store.keep_activations=true",
    "model=local",
    "dataset=pydoc",
    "dataset.num_samples=4",
    "dataset.sequence_length=64",
    "calibrate.batch_size=2",
)
JOBS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "gptq": ("llama", ("scheme=w4a16_g64", "modifier=gptq")),
    "smoothquant": ("llama", ("scheme=w8a8", "modifier=[smoothquant,gptq]")),
    "nvfp4": ("llama", ("scheme=nvfp4", "modifier=gptq")),
    "experts": ("qwen3_moe", ("scheme=w4a16_g64", "modifier=gptq")),
    "kv_cache": ("llama", ("scheme=w8a8", "kv_cache=fp8", "modifier=gptq")),
    "budget": ("llama", ("scheme=auto", "modifier=gptq", "scheme.budget.bits_per_weight=5")),
    "lm_head": ("llama", ("scheme=fp8", "scheme.ignore=[]", "modifier=rtn")),
    "imatrix": (
        "qwen3_moe",
        ("scheme=w4a16_asym", "modifier=rtn", "modifier.rtn.observer=imatrix"),
    ),
}
"""Job -> model and overrides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """How many entries are on both sides, and the names of those that are not the same."""

    count: int
    different: Sequence[str]


def build(tree: Path, job: str, models: Path, work: Path) -> float:
    """Run a job with the presswork of `tree`, run folder and store below `work`; wall seconds."""
    family, words = JOBS[job]
    command = [
        str(tree / ".venv" / "bin" / "python"),
        *("-m", "pipeline", *COMMON, f"model.path={models / family}", *words),
        *("eval=none", f"store.dir={work / 'store'}", f"hydra.run.dir={work / job}"),
    ]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{job} failed in {tree}:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return time.perf_counter() - began


def contents(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """sha256 of files by their names relative to `folder`."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def checkpoint(folder: Path) -> dict[str, str]:
    """sha256 of every file of a checkpoint."""
    return contents(folder, (path for path in sorted(folder.rglob("*")) if path.is_file()))


def results(store: Path) -> dict[str, str]:
    """sha256 of every file of every result as SITE/KEY/FILE; of its manifest, what stages said."""
    found: dict[str, str] = {}
    for path in sorted(store.glob("??/*/manifest.json")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        title = f"{manifest.get('node', '?')} {path.parent.name[:12]}"
        said = json.dumps(manifest["meta"], sort_keys=True)
        found[f"{title} meta"] = hashlib.sha256(said.encode()).hexdigest()
        files = sorted(file for file in path.parent.rglob("*") if file.is_file() and file != path)
        found |= {
            f"{title} {name}": digest for name, digest in contents(path.parent, files).items()
        }
    return found


def compared(old: Mapping[str, Any], new: Mapping[str, Any]) -> Compared:
    return Compared(count=len(old.keys() | new.keys()), different=differing(old, new))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--work", type=Path, help="kept for a look; default: a temporary folder")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp(prefix="compare_builds."))
    try:
        return compare(args.old.resolve(), args.new.resolve(), work.resolve(), args.jobs)
    finally:
        if args.work is None:
            shutil.rmtree(work, ignore_errors=True)


def compare(old: Path, new: Path, work: Path, jobs: Sequence[str]) -> int:
    """Run the jobs with both trees below `work`, print what differs; 1 if anything does."""
    sides = {"old": old, "new": new}
    for name in sides:
        shutil.rmtree(work / name, ignore_errors=True)
    models = work / "models"
    for family in FAMILIES:
        write_model(models / family, family)
    sys.stdout.write(f"{'':14} {'old s':>8} {'new s':>8} {'files':>6}  different\n")
    all_different: list[str] = []
    for job in jobs:
        seconds = [build(tree, job, models, work / name) for name, tree in sides.items()]
        before, now = (checkpoint(work / name / job / "checkpoint") for name in sides)
        all_different += show(job, f"{seconds[0]:8.1f} {seconds[1]:8.1f}", compared(before, now))
    before, now = (results(work / name / "store") for name in sides)
    all_different += show("store", " " * 17, compared(before, now))
    sys.stdout.write(f"{'the same' if not all_different else 'DIFFERENT'}\n")
    return 1 if all_different else 0


def show(title: str, seconds: str, found: Compared) -> Sequence[str]:
    """Print one row of the table and the names below it; returns the names."""
    number = len(found.different) or "none"
    sys.stdout.write(f"{title:14} {seconds} {found.count:6}  {number}\n")
    for name in found.different[:20]:
        sys.stdout.write(f"    {name}\n")
    sys.stdout.flush()
    return found.different


if __name__ == "__main__":
    sys.exit(main())
