"""Flip single bits all over a store: each is found, and what is built again has the same bytes.

`python -m tests.benchmarks.bit_flips --work DIR [--flips 500]` compresses a tiny random model and
then, in rounds, flips one bit of a file or manifest in each of some artifacts, keeping its times as
a disk that rots does. mode=verify's audit must find every one. Every tenth round what it found is
put aside: a run must then give the same checkpoint, and the store the same files as before; in the
others the bits are flipped back. Flips of a seal, which only saves hashing, must change nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from pipeline.store import Store, StoreConfig
from pipeline.store.layout import MANIFEST
from tests.benchmarks.crash import digests
from tests.benchmarks.memory import text_of_bytes
from tests.benchmarks.random_llama import TINY, write_model
from tests.jobs import Job

TOGETHER = 25
"""Flips of a round, each in another artifact, at most."""
REBUILT = 10
"""Rounds from one to the next that is followed by a run."""


@dataclass(kw_only=True, slots=True)
class Flips:
    """Flips, those that the audit found, and what differed after the store was built again."""

    flips: int = 0
    found: int = 0
    rebuilt: int = 0
    seals: int = 0
    different: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.flips == self.found and not self.different


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file as a disk does: its times stay, whoever may write it."""
    status = path.stat()
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    path.chmod(status.st_mode)


def contents(store: Store) -> dict[str, str]:
    """sha256 of all files of all artifacts; manifests say when and how fast they were made."""
    files = {
        f"{key}/{name}": sha
        for key in store.layout.keys()
        for name, sha in digests(store.layout.entry(key)).items()
    }
    return {name: sha for name, sha in files.items() if not name.endswith(f"/{MANIFEST}")}


def drawn(store: Store, draw: random.Random, most: int) -> dict[str, tuple[Path, int]]:
    """Key -> a file and a bit of it, for at most so many artifacts that share none of the files."""
    keys = list(store.layout.keys())
    draw.shuffle(keys)
    hit: dict[str, tuple[Path, int]] = {}
    inodes: set[int] = set()
    for key in keys[:most]:
        files = [path for path in sorted(store.layout.entry(key).rglob("*")) if path.is_file()]
        # a shard has two names in the store: a second flip could undo the first
        files = [f for f in files if f.stat().st_size and f.stat().st_ino not in inodes]
        path = draw.choice(files)
        inodes.add(path.stat().st_ino)
        hit[key] = path, draw.randrange(8 * path.stat().st_size)
    return hit


def flip_bits(model: Path, text: Path, work: Path, *, flips: int, seed: int = 0) -> Flips:
    """Flip bits in rounds; see the module."""
    job = Job(folder=work, model=model, text=text)

    def compress() -> None:
        """In this process: to start one takes longer than all that is built."""
        with open(os.devnull, "w") as void, redirect_stdout(void), redirect_stderr(void):
            job.run("run")

    compress()
    store = Store(StoreConfig(dir=str(work / "store")), warn=lambda text: None)
    whole, checkpoint = contents(store), digests(work / "run" / "checkpoint")
    done, draw = Flips(), random.Random(seed)
    different: set[str] = set()
    for number in count(1):
        hit = drawn(store, draw, min(TOGETHER, flips - done.flips))
        for path, bit in hit.values():
            flip(path, bit)
        seals = draw.sample(sorted(store.layout.seals.rglob("*.json")), 1)
        for seal in seals:
            flip(seal, draw.randrange(8 * seal.stat().st_size))
        last = done.flips + len(hit) == flips
        rebuild = last or number % REBUILT == 0
        findings = {finding.key for finding in store.verify(repair=rebuild)}
        done.flips += len(hit)
        done.seals += len(seals)
        done.found += len(findings & hit.keys())
        sys.stderr.write(f"{done.flips} of {flips}, {done.found} found\n")
        if not rebuild:
            for path, bit in hit.values():
                flip(path, bit)
            continue
        compress()
        done.rebuilt += len(hit)
        now = contents(store)  # without what the targets did not need
        different |= {name for name, sha in now.items() if whole.get(name) != sha}
        again = digests(work / "run" / "checkpoint")
        different |= {n for n in {*again, *checkpoint} if again.get(n) != checkpoint.get(n)}
        if last:
            break
        for key in list(store.layout.keys()):
            store.drop(key)
        compress()
        different |= {name for name, _ in whole.items() ^ contents(store).items()}
    done.different = tuple(sorted(different))
    return done


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--flips", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    model = write_model(args.work / "model", TINY)
    text = text_of_bytes(args.work / "text.txt", 50_000)
    found = flip_bits(model, text, args.work, flips=args.flips, seed=args.seed)
    for name in found.different:
        sys.stdout.write(f"{name} differs\n")
    told = {**asdict(found), "ok": found.ok}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0 if found.ok else 1


if __name__ == "__main__":
    sys.exit(main())
