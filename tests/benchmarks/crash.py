"""Kill a run at random instants, start it again, and compare what comes out.

`python -m tests.benchmarks.crash --work DIR [--kills 20]` compresses a model once undisturbed. Then
it starts the same command in a fresh store, sends SIGKILL to all its processes at a random instant,
starts it again, and so on until it ends; and all that until there were enough kills. Each time the
checkpoint must have the same bytes, and no decoder layer that was solved may be solved again.
Forwards since the last durable copy are repeated, and counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.launch import launch, on_text
from tests.benchmarks.memory import text_of_bytes
from tests.benchmarks.random_llama import TINY, write_model

_BUILT = re.compile(r" built (\S+) in ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Crashes:
    """How many kills there were, in how many rounds; what differed; what was solved twice.

    `repeated` is the number of forwards through a layer that were run more than once.
    """

    kills: int
    rounds: int
    different: tuple[str, ...]
    twice: tuple[str, ...]
    repeated: int

    @property
    def ok(self) -> bool:
        return not self.different and not self.twice


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder by its relative name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def crash(
    model: Path, text: Path, work: Path, *, kills: int, seed: int = 0, more: Sequence[str] = ()
) -> Crashes:
    """Disturb runs until `kills` SIGKILLs have hit one at work."""
    draw = random.Random(seed)
    reference, undisturbed = _undisturbed(model, text, work / "reference", more)
    hit = rounds = repeated = 0
    different: set[str] = set()
    twice: set[str] = set()
    while hit < kills:
        rounds += 1
        place = work / "disturbed"
        shutil.rmtree(place, ignore_errors=True)
        counts: Counter[str] = Counter()
        for attempt in range(kills + 1):
            run = place / f"run-{attempt}"
            command = on_text(model, text, place, *more, f"hydra.run.dir={run}")
            # The last attempts of a round are left alone, or a slow start would never end.
            patience = draw.uniform(0, undisturbed) if hit < kills else None
            found = launch(command, kill_after=patience)
            counts.update(_built(run / "run.log"))
            if not found.killed:
                different |= _differences(reference, digests(run / "checkpoint"))
                break
            hit += 1
        again = {name: count - 1 for name, count in counts.items() if count > 1}
        twice |= {name for name in again if name.startswith("compress[")}
        repeated += sum(count for name, count in again.items() if _is_forward(name))
    return Crashes(
        kills=hit,
        rounds=rounds,
        different=tuple(sorted(different)),
        twice=tuple(sorted(twice)),
        repeated=repeated,
    )


def _undisturbed(
    model: Path, text: Path, place: Path, more: Sequence[str]
) -> tuple[dict[str, str], float]:
    shutil.rmtree(place, ignore_errors=True)
    found = launch(on_text(model, text, place, *more))
    return digests(place / "run" / "checkpoint"), found.seconds


def _built(log: Path) -> list[str]:
    return _BUILT.findall(log.read_text(encoding="utf-8")) if log.exists() else []


def _is_forward(name: str) -> bool:
    return name.startswith(("calibrate[", "propagate["))


def _differences(expected: Mapping[str, str], found: Mapping[str, str]) -> set[str]:
    return {name for name in {*expected, *found} if expected.get(name) != found.get(name)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="a local model; default: a tiny random llama")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", help="more of presswork's overrides")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    model = args.model or write_model(args.work / "model", TINY)
    text = args.text or text_of_bytes(args.work / "text.txt", 50_000)
    more = args.overrides or ["eval=none"]
    found = crash(model, text, args.work, kills=args.kills, seed=args.seed, more=more)
    sys.stdout.write(f"{found.kills} kills in {found.rounds} rounds\n")
    sys.stdout.write(f"files that differ: {', '.join(found.different) or 'none'}\n")
    sys.stdout.write(f"layers solved twice: {', '.join(found.twice) or 'none'}\n")
    sys.stdout.write(f"forwards through a layer repeated: {found.repeated}\n")
    sys.stdout.write(json.dumps({"kills": found.kills, "ok": found.ok}) + "\n")
    return 0 if found.ok else 1


if __name__ == "__main__":
    sys.exit(main())
