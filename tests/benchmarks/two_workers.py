"""Two workers of one thread against one worker of one thread, on a random llama.

    python -m tests.benchmarks.two_workers --width 1024 --layers 16 --turns 2 --work DIR
    python -m tests.benchmarks.two_workers --width 256 --layers 8 --propagate compressed --ray

Both are processes beside the driver, in turns, each time with an empty store. `solve` is from the
first calibrated layer to the last solved one, `whole` from the first node that a worker began to
the end of the last; neither has the start of processes in it. Where other programs use the cores
too, `cores` says how much of them both had: processor time by wall time.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.random_llama import Shape, write_model
from tests.jobs import Job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--propagate", default="original")
    parser.add_argument("--ray", action="store_true", help="actors of Ray in place of processes")
    parser.add_argument("--work", type=Path, required=True)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    text = asked.work / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog, again and again. " * 4000)
    width = asked.width
    shape = Shape(
        layers=asked.layers,
        hidden=width,
        intermediate=width * 11 // 4,
        heads=max(1, width // 64),
        kv_heads=max(1, width // 256),
    )
    model = write_model(asked.work / "model", shape)
    rows = []
    for turn in range(asked.turns):
        for workers in (1, 2):
            folder = asked.work / f"{turn}-{workers}"
            folder.mkdir()
            rows.append({"workers": workers, **measured(asked, folder, model, text, workers)})
            sys.stdout.write(json.dumps(rows[-1]) + "\n")
            sys.stdout.flush()
            shutil.rmtree(folder)
    for name in ("solve", "whole"):
        one, two = (
            statistics.median(row[name] for row in rows if row["workers"] == workers)
            for workers in (1, 2)
        )
        sys.stdout.write(f"{name}: {one:.1f} s with one, {two:.1f} s with two: {one / two:.2f} x\n")


def measured(
    asked: argparse.Namespace, folder: Path, model: Path, text: Path, workers: int
) -> dict[str, float]:
    """One run, and its times in seconds."""
    who = (
        ["runner=ray", f"runner.workers={workers}"]
        if asked.ray
        else [f"runner.devices=[{','.join(['cpu'] * workers)}]"]
    )
    before, began = processor_seconds(), time.monotonic()
    result = Job(folder=folder, model=model, text=text).run(
        "run",
        f"calibrate.propagate={asked.propagate}",
        f"dataset.num_samples={asked.samples}",
        f"dataset.sequence_length={asked.length}",
        *who,
    )
    cores = (processor_seconds() - before) / (time.monotonic() - began)
    nodes = [node for node in result["nodes"] if node["worker"]]
    layers = [node for node in nodes if node["kind"] in ("calibrate", "compress")]
    return {"solve": span(layers), "whole": span(nodes), "cores": round(cores, 2)}


def span(nodes: Sequence[Mapping[str, Any]]) -> float:
    """Seconds from the start of the first node to the end of the last."""
    return max(n["started"] + n["seconds"] for n in nodes) - min(n["started"] for n in nodes)


def processor_seconds() -> float:
    """Processor time of the processes that this one started and that have ended, and its own."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
