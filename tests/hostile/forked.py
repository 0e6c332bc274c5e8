"""Read changed files in forks of this process, with limits of time and memory.

A fork has everything imported, so that an input costs what reading it does. One that dies, takes
too long or too much memory is counted, and another fork goes on with the next input.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from pipeline.errors import ManyErrors, StageFailed, UserError
from tests.hostile.readers import Kind

SECONDS, BYTES = 20.0, 1_500_000_000
WAIT = 180.0
"""Seconds to wait for an input that may take SECONDS of a core: other processes have theirs."""
BATCH = 200
FINE = ("read", "refused")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """`what`: read, refused, crashed, slow, died, large, or left (files). `seed` makes it again."""

    kind: str
    seed: int
    what: str
    text: str = ""
    peak: int = 0


def outcomes(kind: Kind, seeds: range, work: Path) -> Iterator[Outcome]:
    """What becomes of the changed files of one kind; `work` is an empty folder."""
    sound = work / "sound"
    sound.mkdir(parents=True)
    kind.sound(sound)
    left = list(seeds)
    while left:
        batch = left[:BATCH]
        for found in _forked(kind, batch, sound, work):
            left.remove(found.seed)
            yield found


def _forked(kind: Kind, seeds: list[int], sound: Path, work: Path) -> Iterator[Outcome]:
    """Outcomes for all of `seeds`, or up to the first that the fork does not survive."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            _child(kind, seeds, sound, work, writing)
        finally:
            os._exit(0)
    os.close(writing)
    done = 0
    buffer = b""
    ended = "died"
    try:
        while done < len(seeds):
            if not select.select([reading], [], [], WAIT)[0]:
                ended = "slow"
                break
            if not (piece := os.read(reading, 1 << 16)):
                break
            *lines, buffer = (buffer + piece).split(b"\n")
            for line in lines:
                yield Outcome(**json.loads(line))
                done += 1
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
    if done < len(seeds):
        yield Outcome(kind=kind.name, seed=seeds[done], what=ended)


def _child(kind: Kind, seeds: list[int], sound: Path, work: Path, out: int) -> None:
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    for name in ("home", "tmp", "cwd"):
        (work / name).mkdir(exist_ok=True)
    os.environ |= {"HOME": str(work / "home"), "TMPDIR": str(work / "tmp")}
    tempfile.tempdir = None
    torch.set_num_threads(1)  # the threads of a pool do not survive a fork
    os.chdir(work / "cwd")
    for seed in seeds:
        found = _outcome(kind, seed, sound, work)
        os.write(out, json.dumps(asdict(found)).encode() + b"\n")
        if found.what == "large":
            return


def _outcome(kind: Kind, seed: int, sound: Path, work: Path) -> Outcome:
    folder = work / "input"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sound, folder)
    data = (sound / kind.file).read_bytes()
    (folder / kind.file).write_bytes(kind.change(data, Random(f"{kind.name} {seed}")))
    files = _files(sound)
    what, text, began = "read", "", time.process_time()
    try:
        kind.read(folder)
    except (UserError, ManyErrors, StageFailed) as error:
        what, text = "refused", str(error)[:200]
    except BaseException as error:  # a panic of a library in Rust is no Exception
        what, text = "crashed", f"{type(error).__name__}: {error}"[:400]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    extra = {n for n in _files(folder) - files if not n.startswith("scratch")}
    extra |= _files(work / "tmp") | _files(work / "cwd") | _files(work / "home")
    if what in FINE and extra:
        what, text = "left", ", ".join(sorted(extra))[:200]
    if what in FINE and time.process_time() - began > SECONDS:
        what = "slow"
    if what in FINE and peak > BYTES:
        what = "large"
    return Outcome(kind=kind.name, seed=seed, what=what, text=text, peak=peak)


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def summary(found: list[Outcome]) -> dict[str, Any]:
    """Counts by kind and outcome, and the highest peak in bytes."""
    counts: dict[str, dict[str, int]] = {}
    for outcome in found:
        row = counts.setdefault(outcome.kind, {})
        row[outcome.what] = row.get(outcome.what, 0) + 1
    return {"counts": counts, "peak": max(outcome.peak for outcome in found)}
