"""One sweep over five ways to choose weights: what it takes beside solving and one calibration.

    python -m tests.benchmarks.five_modifiers --model DIR --text wiki.valid.raw --work DIR

AWQ with rounding, GPTQ, SmoothQuant with GPTQ, rotations with GPTQ and learned rounding, on the
original model's activations, with a fresh store. The limit is 1.2 times the sum of all solving, of
the first job's calibration and of what learned rounding runs for itself (the original's chain and
the compressed one's), all of them seconds of nodes of this very sweep, so that a busy machine slows
both sides. Beside it: processor seconds of the whole, and the layers that each job calibrated.
Further overrides go to all jobs: `scheme.targets` for some of the layers only.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.launch import as_sweep, on_text, result_of
from tests.benchmarks.learned import processor_seconds

MODIFIERS = ("[awq,rtn]", "[gptq]", "[smoothquant,gptq]", "[spinquant,gptq]", "[autoround]")
MOST_RATIO = 1.2
SOLVING = ("compress", "compress_outside")
CALIBRATING = ("calibrate", "unrotated")
LEARNING = ("reference", "propagate")
"""Sites of the forwards that only learned rounding asks for, where calibrate.propagate=original."""

Node = Mapping[str, Any]


def command(model: Path, text: Path, work: Path, more: Sequence[str]) -> list[str]:
    """The sweep, everything it writes below `work`."""
    shared = ["dataset.part=calibration", "dataset.num_samples=16", "dataset.sequence_length=512"]
    chosen = ["calibrate.propagate=original", "eval=none", f"modifier={','.join(MODIFIERS)}"]
    folder = f"hydra.sweep.dir={work / 'jobs'}"
    return as_sweep(on_text(model, text, work, *shared, *chosen, folder, *more))


def built(work: Path) -> Iterator[tuple[int, str, Node]]:
    """(job, site, node) of all that the jobs built."""
    for number in range(len(MODIFIERS)):
        for node in result_of(work / "jobs" / str(number))["nodes"]:
            if node["status"] == "built":
                yield number, str(node["name"]).partition("[")[0], node


def parts(work: Path) -> dict[str, float]:
    """Seconds of solving, of one calibration, of learned rounding's forwards, and of all nodes."""
    found = dict.fromkeys(("solving", "calibration", "learning_forwards", "nodes"), 0.0)
    for number, site, node in built(work):
        found["nodes"] += node["seconds"]
        if site in SOLVING:
            found["solving"] += node["seconds"]
        elif site in LEARNING:
            found["learning_forwards"] += node["seconds"]
        elif site in CALIBRATING and number == 0:
            found["calibration"] += node["seconds"]
    return found


def calibrations(work: Path) -> dict[str, int]:
    """Job -> layers whose inputs it gathered statistics of, of jobs that gathered any."""
    found = Counter(number for number, site, _ in built(work) if site in CALIBRATING)
    return {MODIFIERS[number]: count for number, count in sorted(found.items())}


def measure(model: Path, text: Path, work: Path, more: Sequence[str] = ()) -> dict[str, Any]:
    """Run the sweep; its seconds over those of its parts."""
    shutil.rmtree(work, ignore_errors=True)
    swept = processor_seconds(command(model, text, work, more))
    found = parts(work)
    allowed = found["solving"] + found["calibration"] + found["learning_forwards"]
    return {
        **swept,
        "parts": found,
        "ratio": swept["seconds"] / allowed,
        "layers_calibrated": calibrations(work),
        "jobs": {
            name: result_of(work / "jobs" / str(number))["seconds"]
            for number, name in enumerate(MODIFIERS)
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a transformers folder")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", help="more overrides of all jobs")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    found = measure(args.model.resolve(), args.text, args.work.resolve() / "sweep", args.overrides)
    sys.stdout.write(json.dumps({**found, "ok": found["ratio"] <= MOST_RATIO}, indent=1) + "\n")
    return 0 if found["ratio"] <= MOST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
