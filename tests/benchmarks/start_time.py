"""How long a command takes that computes nothing, by two versions of presswork in turn.

`python -m tests.benchmarks.start_time OLD_TREE NEW_TREE [--turns N]` measures `--help`, completion
of the options of a group and of keys, `mode=plan` of the default config on an empty store (both the
first time, with an empty cache of the user too, and again), `mode=plan` of a tiny model whose
results are stored, and the run itself of those results, each tree by its own .venv/bin/python. It
prints medians of wall and of processor time; the ratios are those of processor time, which what
else runs on the machine hardly changes.
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
FASTER = 0.6
"""What the commands that people wait for may take of the old tree's time (issue 19)."""
GOALS = dict.fromkeys(
    ("help", "completion, options", "completion, keys", "plan, nothing stored"), FASTER
)
"""The largest ratio of what is not named here is MOST_RATIO."""
COMPLETED = {
    "completion, first ever": "presswork eval.",
    "completion, options": "presswork scheme=",
    "completion, keys": "presswork eval.",
}
FIRST = "plan, first ever"
CACHES = {FIRST: "blueprints", "completion, first ever": "completion"}
"""What of the user's cache is emptied before a command."""


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
        "help": ["--help"],
        **{title: ["-sc", "query=bash"] for title in COMPLETED},
        FIRST: ["mode=plan", f"store.dir={work / 'empty'}", *where],
        "plan, nothing stored": ["mode=plan", f"store.dir={work / 'empty'}", *where],
        "plan, all stored": ["mode=plan", *tiny, *where],
        "run, all stored": [*tiny, *where],
    }


def seconds(tree: Path, title: str, overrides: list[str], work: Path) -> tuple[float, float]:
    """Wall and processor seconds of a command of a tree.

    Raises CommandFailed with the end of its output.
    """
    command = [str(tree / ".venv" / "bin" / "python"), "-m", "pipeline", *overrides]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env["XDG_CACHE_HOME"] = str(work / "cache")
    if title in COMPLETED:
        env |= {"COMP_LINE": COMPLETED[title], "COMP_POINT": str(len(COMPLETED[title]))}
    if title in CACHES:
        shutil.rmtree(work / "cache" / "presswork" / CACHES[title], ignore_errors=True)
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    spent, after = time.perf_counter() - began, os.times()
    if done.returncode:
        raise CommandFailed(f"{' '.join(command)} left with {done.returncode}:\n{done.stderr}")
    used = after.children_user + after.children_system
    return spent, used - before.children_user - before.children_system


Medians = dict[str, dict[str, tuple[float, float]]]


def measure(trees: Mapping[str, Path], work: Path, turns: int) -> Medians:
    """Medians by command and tree; each turn runs every command by every tree, in turn."""
    model = write_model(work / "model", TINY)
    text_of_bytes(model.parent / "text.txt", 50_000)
    asked = {name: commands(work / name) for name in trees}
    for name, tree in trees.items():  # once, so that all is stored and every .pyc is written
        for title, overrides in reversed(asked[name].items()):
            seconds(tree, title, overrides, work / name)
    found: dict[str, dict[str, list[tuple[float, float]]]] = {
        title: {name: [] for name in trees} for title in commands(work)
    }
    for turn in range(turns):
        for title, by_tree in found.items():
            for name in sorted(trees, reverse=turn % 2 == 1):
                by_tree[name].append(seconds(trees[name], title, asked[name][title], work / name))
    for name in trees:
        if made := built(result_of(work / name / "run")):
            raise CommandFailed(f"the last run of {name} built {', '.join(sorted(made))}")
    return {
        title: {
            name: (statistics.median(wall for wall, _ in times), statistics.median(used))
            for name, times in by_tree.items()
            for used in [[used for _, used in times]]
        }
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
    ratios = {title: medians["new"][1] / medians["old"][1] for title, medians in found.items()}
    heading = f"median of {args.turns}"
    sys.stdout.write(
        f"{heading:22} {'old s':>7} {'new s':>7} {'old CPU':>8} {'new CPU':>8} {'ratio':>6}\n"
    )
    for title, medians in found.items():
        (old, old_used), (new, new_used) = medians["old"], medians["new"]
        sys.stdout.write(
            f"{title:22} {old:7.2f} {new:7.2f} {old_used:8.2f} {new_used:8.2f} "
            f"{ratios[title]:6.2f}\n"
        )
    good = all(ratio <= GOALS.get(title, MOST_RATIO) for title, ratio in ratios.items())
    sys.stdout.write(json.dumps({**ratios, "ok": good}) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
