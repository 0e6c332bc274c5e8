"""What a second run costs: the same again, another evaluation, and a sweep of three.

`python -m tests.benchmarks.reuse --work DIR --model DIR --text FILE` prints seconds and ratios.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.launch import as_sweep, built, launch, on_text, result_of
from tests.benchmarks.memory import text_of_bytes
from tests.benchmarks.random_llama import TINY, write_model

MOST_SECONDS = 5.0
MOST_RATIO = 1.6


def again(model: Path, text: Path, work: Path, more: Sequence[str] = ()) -> dict[str, Any]:
    """Seconds of a run, of the same again, and what the second and a changed eval built."""
    shutil.rmtree(work, ignore_errors=True)
    command = on_text(model, text, work, *more)
    first = launch(command)
    second = launch([*command, f"hydra.run.dir={work / 'second'}"])
    third = launch(
        [*command, "eval.max_new_tokens=12", f"hydra.run.dir={work / 'third'}"],
    )
    return {
        "first_seconds": first.seconds,
        "second_seconds": second.seconds,
        "second_built": sorted(built(result_of(work / "second"))),
        "other_eval_seconds": third.seconds,
        "other_eval_built": sorted(built(result_of(work / "third"))),
    }


def sweep(
    model: Path, text: Path, work: Path, sizes: Sequence[int], more: Sequence[str] = ()
) -> dict[str, Any]:
    """Seconds of one group size and of all, each in a fresh store, statistics shared."""
    shutil.rmtree(work, ignore_errors=True)
    shared = ("calibrate.propagate=original", "eval=none", *more)
    size = "scheme.weights.group_size="
    one = launch(on_text(model, text, work / "one", *shared, f"{size}{sizes[0]}"))
    command = on_text(
        model,
        text,
        work / "several",
        *shared,
        f"{size}{','.join(map(str, sizes))}",
        f"hydra.sweep.dir={work / 'sweep'}",
    )
    several = launch(as_sweep(command))
    jobs = [built(result_of(work / "sweep" / str(number))) for number in range(len(sizes))]
    names = sorted({name for job in jobs for name in job})
    return {
        "one_seconds": one.seconds,
        "sweep_seconds": several.seconds,
        "ratio": several.seconds / one.seconds,
        "calibrated_more_than_once": [
            name
            for name in names
            if name.startswith("calibrate[") and sum(name in job for job in jobs) > 1
        ],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="a local model; default: a tiny random llama")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=None)
    parser.add_argument("overrides", nargs="*", help="more of presswork's overrides")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    model = args.model or write_model(args.work / "model", TINY)
    text = args.text or text_of_bytes(args.work / "text.txt", 50_000)
    sizes = args.sizes or ([32, 64, 96] if args.model else [16, 32, 64])
    repeated = again(model, text, args.work / "again", args.overrides)
    swept = sweep(model, text, args.work / "swept", sizes, args.overrides)
    found = {**repeated, **swept}
    for name, value in found.items():
        shown = f"{value:.2f}" if isinstance(value, float) else value
        sys.stdout.write(f"{name:28} {shown}\n")
    good = (
        not repeated["second_built"]
        and repeated["second_seconds"] < MOST_SECONDS
        and not swept["calibrated_more_than_once"]
        and swept["ratio"] < MOST_RATIO
    )
    sys.stdout.write(json.dumps({**found, "ok": good}) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
