"""Two trees of presswork in turns: wall time of a job and what it writes to the disk.

`python -m tests.benchmarks.two_builds OLD NEW --work DIR` runs each tree by its own
.venv/bin/python in stores of its own. Part `time` is the default job without eval; part `bytes` is
64 x 1024 tokens through a random llama of width 2048 with few layers. Bytes are those that the
kernel counts for the process as it writes to a file, kept or not later on. Every turn must end
with the same checkpoint. Nothing else should use the machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.crash import digests
from tests.benchmarks.launch import CommandFailed, on_text
from tests.benchmarks.memory import text_of_bytes
from tests.benchmarks.random_llama import TINY, Shape, write_model

BLOCK = 512
"""Bytes of a block in a process's resource usage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A job by its overrides."""

    name: str
    words: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One run: wall seconds and bytes written to disks."""

    seconds: float
    written: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """All turns of the old and the new tree; whether all checkpoints are the same."""

    old: tuple[Turn, ...]
    new: tuple[Turn, ...]
    same: bool

    @property
    def seconds(self) -> float:
        """Median of the new tree's seconds over that of the old one's."""
        return _ratio([t.seconds for t in self.new], [t.seconds for t in self.old])

    @property
    def written(self) -> float:
        """The same of the bytes."""
        return _ratio([t.written for t in self.new], [t.written for t in self.old])


def compare(part: Part, old: Path, new: Path, work: Path, *, turns: int) -> Comparison:
    """Run both trees so many times below `work`, the first one changing from turn to turn."""
    trees, found = {"old": old, "new": new}, {"old": list[Turn](), "new": list[Turn]()}
    results: list[dict[str, str]] = []
    for turn in range(turns):
        for name in sorted(trees, reverse=turn % 2 == 0):
            place = work / name
            shutil.rmtree(place, ignore_errors=True)
            found[name].append(run(trees[name], part.words, place))
            results.append(without_makers(digests(place / "run" / "checkpoint")))
            shutil.rmtree(place / "store")
            show(f"{part.name} {name}", found[name][-1:])
    same = all(result == results[0] for result in results)
    return Comparison(old=tuple(found["old"]), new=tuple(found["new"]), same=same)


def run(tree: Path, words: Sequence[str], place: Path) -> Turn:
    """One run of the presswork of `tree`, everything it writes below `place`."""
    place.mkdir(parents=True)
    command = [str(tree / ".venv" / "bin" / "python"), "-m", "pipeline", *words, "eval=none"]
    command += [f"store.dir={place / 'store'}", f"hydra.run.dir={place / 'run'}"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=tree, env=env, stdout=out, stderr=out)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            out.seek(0)
            end = out.read().decode(errors="replace")[-3000:]
            raise CommandFailed(f"{' '.join(command)} left with {process.returncode}:\n{end}")
    return Turn(seconds=seconds, written=usage.ru_oublock * BLOCK)


def without_makers(files: Mapping[str, str]) -> dict[str, str]:
    """The files but the one that says which versions made the others."""
    return {name: digest for name, digest in files.items() if name != "provenance.json"}


def warm(tree: Path, work: Path) -> None:
    """Let the compiled loops of a tree be cached, on a tiny model."""
    model, text = write_model(work / "tiny", TINY), text_of_bytes(work / "tiny.txt", 50_000)
    size = ("dataset.num_samples=4", "dataset.sequence_length=64")
    shutil.rmtree(work / "warm", ignore_errors=True)
    run(tree, [*on_text(model, text, work)[3:8], *size], work / "warm")


def show(title: str, turns: Sequence[Turn]) -> None:
    seconds = statistics.median(turn.seconds for turn in turns)
    written = statistics.median(turn.written for turn in turns)
    sys.stdout.write(f"{title:12} {seconds:8.1f} s {written / 1e6:10.1f} MB written\n")
    sys.stdout.flush()


def _ratio(new: Sequence[float], old: Sequence[float]) -> float:
    before = statistics.median(old)
    return statistics.median(new) / before if before else float("nan")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--part", choices=["time", "bytes", "both"], default="both")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--intermediate", type=int, default=5632)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("overrides", nargs="*", help="more of presswork's overrides")
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    old, new = args.old.resolve(), args.new.resolve()
    same = True
    for tree in (old, new):
        warm(tree, work)
    for part in parts_of(args, work):
        found = compare(part, old, new, work, turns=args.turns)
        show(f"{part.name} old", found.old)
        show(f"{part.name} new", found.new)
        sys.stdout.write(
            f"{part.name}: {found.seconds:.2f} times as long, {found.written:.3f} times as much "
            f"written, checkpoints {'the same' if found.same else 'DIFFERENT'}\n"
        )
        same = same and found.same
    return 0 if same else 1


def parts_of(args: argparse.Namespace, work: Path) -> list[Part]:
    """The parts that were asked for; the random llama is written for the second one."""
    parts = []
    if args.part != "bytes":
        parts.append(Part(name="time", words=args.overrides))
    if args.part != "time":
        shape = Shape(layers=args.layers, hidden=args.hidden, intermediate=args.intermediate)
        model = write_model(work / "model", shape)
        text = text_of_bytes(work / "text.txt", 2 * args.samples * args.length + 50_000)
        size = [f"dataset.num_samples={args.samples}", f"dataset.sequence_length={args.length}"]
        words = [*on_text(model, text, work)[3:8], *size, *args.overrides]
        parts.append(Part(name="bytes", words=words))
    return parts


if __name__ == "__main__":
    sys.exit(main())
