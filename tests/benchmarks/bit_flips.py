"""Flip single bits all over a store: each is found, and what is built again has the same bytes.

`python -m tests.benchmarks.bit_flips --work DIR [--flips 500]` compresses a tiny random model and
then, in rounds, flips one bit in each of some artifacts, in a file or a manifest drawn by its size
or evenly, keeping its times as a disk that rots does. mode=verify's audit must find every one; a
run must then give the same checkpoint, and the store the same files as before. Flips of a seal,
which only saves hashing, must change nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.store import Store, StoreConfig
from pipeline.store.layout import MANIFEST
from tests.benchmarks.crash import digests
from tests.benchmarks.launch import launch, on_text
from tests.benchmarks.memory import text_of_bytes
from tests.benchmarks.random_llama import TINY, write_model

TOGETHER = 25
"""Flips of a round, each in another artifact."""


@dataclass(kw_only=True, slots=True)
class Flips:
    """Flips, those that the audit found, and what differed after the store was built again."""

    flips: int = 0
    found: int = 0
    seals: int = 0
    different: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.flips == self.found and not self.different


def flip(path: Path, draw: random.Random) -> None:
    """Flip one bit of a file as a disk does: its times stay, whoever may write it."""
    status = path.stat()
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    place = draw.randrange(8 * len(data))
    data[place // 8] ^= 1 << place % 8
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


def flip_bits(model: Path, text: Path, work: Path, *, flips: int, seed: int = 0) -> Flips:
    """Flip bits in rounds; see the module."""
    command = on_text(model, text, work, "eval=none", "dataset.num_samples=4")
    launch(command)
    store = Store(StoreConfig(dir=str(work / "store")), warn=lambda text: None)
    whole, checkpoint = contents(store), digests(work / "run" / "checkpoint")
    done, draw = Flips(), random.Random(seed)
    different: set[str] = set()
    while done.flips < flips:
        keys = list(store.layout.keys())
        names = {path: key for key in keys for path in store.layout.entry(key).rglob("*")}
        files = [path for path in names if path.is_file() and path.stat().st_size]
        hit: dict[str, Path] = {}
        inodes: set[int] = set()
        for _ in range(100 * TOGETHER):
            path = draw.choice(files)
            # a shard has two names in the store, and would be flipped back by the second flip
            if names[path] in hit or path.stat().st_ino in inodes:
                continue
            hit[names[path]] = path
            inodes.add(path.stat().st_ino)
            if len(hit) == min(TOGETHER, flips - done.flips):
                break
        for path in hit.values():
            flip(path, draw)
        for seal in draw.sample(sorted(store.layout.seals.rglob("*.json")), 3):
            flip(seal, draw)
            done.seals += 1
        findings = {finding.key for finding in store.verify()}
        done.flips += len(hit)
        done.found += len(findings & hit.keys())
        launch(command)
        now = contents(store)
        different |= {name for name in {*now, *whole} if now.get(name) != whole.get(name)}
        again = digests(work / "run" / "checkpoint")
        different |= {n for n in {*again, *checkpoint} if again.get(n) != checkpoint.get(n)}
        sys.stderr.write(f"{done.flips} of {flips}, {done.found} found\n")
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
    told = {"flips": found.flips, "found": found.found, "seals": found.seals, "ok": found.ok}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0 if found.ok else 1


if __name__ == "__main__":
    sys.exit(main())
