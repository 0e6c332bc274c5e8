"""Starting a command as a user would, and measuring it from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Wall seconds from start to end, and the largest resident memory of the process tree.

    `killed` says that it was ended by us after the given delay.
    """

    seconds: float
    peak_rss_bytes: int
    killed: bool
    output: str


class CommandFailed(RuntimeError):
    """A measured command left with an error."""


def launch(
    command: Sequence[str],
    *,
    kill_after: float | None = None,
    env: Mapping[str, str] | None = None,
    sampling: float = 0.05,
) -> Measured:
    """Run `command` in the repository's folder; SIGKILL its whole group after `kill_after` s.

    Raises CommandFailed with the end of its output if it fails by itself.
    """
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **(env or {})},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        peak, killed = 0, False
        while process.poll() is None:
            peak = max(peak, tree_rss_bytes(process.pid))
            if kill_after is not None and time.perf_counter() - began >= kill_after:
                killed = _kill_group(process)
                break
            time.sleep(sampling if kill_after is None else 0.005)
        code = process.wait()
        seconds = time.perf_counter() - began
        out.seek(0)
        text = out.read().decode("utf-8", errors="replace")
    if code and not killed:
        raise CommandFailed(f"{' '.join(command)} left with {code}:\n{text[-3000:]}")
    return Measured(seconds=seconds, peak_rss_bytes=peak, killed=killed, output=text)


def _kill_group(process: subprocess.Popen[bytes]) -> bool:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def tree_rss_bytes(pid: int) -> int:
    """Resident bytes of a process and its descendants now; shared pages count for each of them."""
    total = 0
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def presswork(*overrides: str) -> list[str]:
    """The command line of presswork with these overrides."""
    return [sys.executable, "-m", "pipeline", *overrides]


def on_text(model: Path, text: Path, work: Path, *more: str) -> list[str]:
    """A run on a local model and a text, everything it writes below `work`; later ones win.

    The run folder is `work`/run, the store `work`/store.
    """
    return presswork(
        "model=local",
        f"model.path={model}",
        "dataset=text",
        f"dataset.path={text}",
        "scheme=w4a16_g64",
        f"store.dir={work / 'store'}",
        f"hydra.run.dir={work / 'run'}",
        *more,
    )


def as_sweep(command: Sequence[str]) -> list[str]:
    """The command with -m: Hydra wants its flags before the overrides."""
    place = command.index("pipeline") + 1
    return [*command[:place], "-m", *command[place:]]


def result_of(run: Path) -> dict[str, Any]:
    """result.json of a run folder."""
    return dict(json.loads((run / "result.json").read_text(encoding="utf-8")))


def diverged(
    model: Path, folder: Path, text: Path, *, windows: int, length: int = 512
) -> dict[str, Any]:
    """KL to the original, of each window too, and perplexity: a process of `divergence`'s own."""
    command = [sys.executable, "-m", "tests.benchmarks.divergence", str(model), str(folder)]
    command += ["--text", str(text), "--length", str(length), "--limit", str(windows)]
    return dict(json.loads(launch(command, sampling=0.5).output.strip().splitlines()[-1]))


def built(result: Mapping[str, Any]) -> set[str]:
    """Names of the nodes that a run built."""
    return {node["name"] for node in result["nodes"] if node["status"] == "built"}
