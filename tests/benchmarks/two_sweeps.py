"""Two sweeps on one store, started at the same moment; one is killed halfway.

`python -m tests.benchmarks.two_sweeps --work DIR [--model DIR --text FILE]` first makes the
checkpoints of every job alone. Then it starts the sweep twice at once, sends SIGKILL to all
processes of one when half of its jobs are begun, lets the other end, and gives the killed command
again. All checkpoints must have the bytes of those made alone, no result may be built twice, and
mode=verify must find nothing wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.crash import digests
from tests.benchmarks.launch import REPOSITORY, as_sweep, launch, on_text, presswork
from tests.benchmarks.memory import text_of_bytes
from tests.benchmarks.random_llama import TINY, write_model

_BUILT = re.compile(r"\bbuilt (\S+) in ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweeps:
    """Jobs whose checkpoint differs from the one made alone, results that were built twice, what
    the command that was killed built when it was given again, and whether the store is whole."""

    different: tuple[str, ...]
    twice: tuple[str, ...]
    built_again: int
    whole: bool

    @property
    def ok(self) -> bool:
        return not self.different and not self.twice and self.whole


def two_sweeps(
    model: Path, text: Path, work: Path, sizes: Sequence[int], more: Sequence[str] = ()
) -> Sweeps:
    """Run it all below `work`, one job for each group size and solver."""
    shutil.rmtree(work, ignore_errors=True)
    swept = ["calibrate.propagate=original", "eval=none", *more]
    swept += [f"scheme.weights.group_size={','.join(map(str, sizes))}", "modifier=rtn,gptq"]
    count = 2 * len(sizes)

    def command(store: str, folder: str) -> list[str]:
        where = f"hydra.sweep.dir={work / folder}"
        return as_sweep(on_text(model, text, work / store, *swept, where))

    launch(command("alone", "reference"))
    survivor, victim = (start(command("shared", folder)) for folder in ("first", "second"))
    while victim.poll() is None and not (work / "second" / "jobs" / f"{count // 2}.json").exists():
        time.sleep(0.05)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    if survivor.wait():
        raise RuntimeError(f"the sweep that was left alone ended with {survivor.returncode}")
    launch(command("shared", "again"))
    counts = Counter(
        key for folder in ("first", "second", "again") for key in built_keys(work / folder)
    )
    again = json.loads((work / "again" / "sweep.json").read_text(encoding="utf-8"))
    verified = subprocess.run(
        presswork("mode=verify", f"store.dir={work / 'shared' / 'store'}"),
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    return Sweeps(
        different=tuple(
            f"{folder}/{job}"
            for folder in ("first", "again")
            for job in range(count)
            if digests(work / folder / str(job) / "checkpoint")
            != digests(work / "reference" / str(job) / "checkpoint")
        ),
        twice=tuple(sorted(name for (name, _), times in counts.items() if times > 1)),
        built_again=sum(job["built"] for job in again["jobs"]),
        whole=verified.returncode == 0,
    )


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """A command in a process group of its own, with nothing on this terminal."""
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def built_keys(sweep: Path) -> Iterator[tuple[str, str]]:
    """(node, key) of all that the jobs of a sweep say they built, the killed ones too."""
    for log in sweep.glob("*/run.log"):
        plan = log.with_name("plan.json")
        if not plan.exists():
            continue
        nodes = json.loads(plan.read_text(encoding="utf-8"))
        keys = {node["name"]: node["keys"] for node in nodes}
        for name in _BUILT.findall(log.read_text(encoding="utf-8")):
            yield name, json.dumps(keys[name], sort_keys=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="a local model; default: a tiny random llama")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("overrides", nargs="*", help="more of presswork's overrides")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    model = args.model or write_model(args.work / "model", TINY)
    text = args.text or text_of_bytes(args.work / "text.txt", 50_000)
    found = two_sweeps(model, text, args.work / "sweeps", args.sizes, args.overrides)
    sys.stdout.write(f"checkpoints that differ: {', '.join(found.different) or 'none'}\n")
    sys.stdout.write(f"built twice: {', '.join(found.twice) or 'none'}\n")
    sys.stdout.write(f"built when the killed command was given again: {found.built_again}\n")
    sys.stdout.write(f"mode=verify: {'nothing wrong' if found.whole else 'damage'}\n")
    sys.stdout.write(json.dumps({"ok": found.ok, "built_again": found.built_again}) + "\n")
    return 0 if found.ok else 1


if __name__ == "__main__":
    sys.exit(main())
