"""How long a command takes that computes nothing, by two versions of presswork in turn.

`python -m tests.benchmarks.start_time OLD_TREE NEW_TREE [--turns N]` measures `mode=plan` of the
default config on an empty store, `mode=plan` of a tiny model whose results are stored, and the run
itself of those results, each tree by its own .venv/bin/python. It prints medians and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks.launch import CommandFailed, built, result_of
from tests.benchmarks.memory import text_of_bytes
from tests.benchmarks.random_llama import TINY, write_model

MOST_RATIO = 1.05


def commands(work: Path) -> dict[str, list[str]]:
    """What is measured -> overrides; everything that a tree writes is below `work`."""
    where = [f"hydra.run.dir={work / 'run'}", f"runs=[{work / 'runs'}]"]
    tiny = [
        "device=cpu",
        "runner.threads=1",
        "model=local",
        f"model.path={work.parent / 'model'}",
        "dataset=text",
        f"dataset.path={work.parent / 'text.txt'}",
        "dataset.num_samples=4",
        "dataset.sequence_length=64",
        "scheme.weights.group_size=32",
        "eval=none",
        f"store.dir={work / 'store'}",
    ]
    return {
        "plan, nothing stored": ["mode=plan", f"store.dir={work / 'empty'}", *where],
        "plan, all stored": ["mode=plan", *tiny, *where],
        "run, all stored": [*tiny, *where],
    }


def seconds(tree: Path, overrides: list[str]) -> float:
    """Wall seconds of a command of a tree. Raises CommandFailed with the end of its output."""
    command = [str(tree / ".venv" / "bin" / "python"), "-m", "pipeline", *overrides]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    spent = time.perf_counter() - began
    if done.returncode:
        raise CommandFailed(f"{' '.join(command)} left with {done.returncode}:\n{done.stderr}")
    return spent


def measure(trees: Mapping[str, Path], work: Path, turns: int) -> dict[str, dict[str, float]]:
    """Medians by command and tree; each turn runs every command by every tree, in turn."""
    model = write_model(work / "model", TINY)
    text_of_bytes(model.parent / "text.txt", 50_000)
    asked = {name: commands(work / name) for name in trees}
    for name, tree in trees.items():  # once, so that all is stored and every .pyc is written
        for overrides in reversed(asked[name].values()):
            seconds(tree, overrides)
    found: dict[str, dict[str, list[float]]] = {
        title: {name: [] for name in trees} for title in commands(work)
    }
    for turn in range(turns):
        for title, by_tree in found.items():
            for name in sorted(trees, reverse=turn % 2 == 1):
                by_tree[name].append(seconds(trees[name], asked[name][title]))
    for name in trees:
        if made := built(result_of(work / name / "run")):
            raise CommandFailed(f"the last run of {name} built {', '.join(sorted(made))}")
    return {
        title: {name: statistics.median(times) for name, times in by_tree.items()}
        for title, by_tree in found.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--turns", type=int, default=9)
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="start_time."))
    try:
        trees = {"old": args.old.resolve(), "new": args.new.resolve()}
        found = measure(trees, work, args.turns)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    ratios = {title: medians["new"] / medians["old"] for title, medians in found.items()}
    sys.stdout.write(
        f"{'median of ' + str(args.turns):22} {'old s':>7} {'new s':>7} {'ratio':>6}\n"
    )
    for title, medians in found.items():
        sys.stdout.write(
            f"{title:22} {medians['old']:7.2f} {medians['new']:7.2f} {ratios[title]:6.2f}\n"
        )
    good = all(ratio <= MOST_RATIO for ratio in ratios.values())
    sys.stdout.write(json.dumps({**ratios, "ok": good}) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
