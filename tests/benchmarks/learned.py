"""Learned rounding against auto-round on the same weights and the same tokens.

    tests/benchmarks/setup_learned_peer.sh DIR && export PRESSWORK_AUTOROUND_PYTHON=DIR/bin/python
    python -m tests.benchmarks.learned --model DIR --text wiki.valid.raw --work DIR

The first half of the text calibrates (16 sequences of 512 tokens), the second evaluates, all judged
by transformers alone: KL to the original and perplexity with standard errors. Seconds are those of
the processor (user and system, of all processes and threads), which a busy machine changes little,
beside the wall's. Each run has a fresh store, and is timed from the start of its process to the
saved checkpoint. Without `--peer` only presswork runs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.launch import diverged, launch, on_text
from tests.benchmarks.tokens import halves

PEER = "auto-round"
SOLVERS = ("rtn", "gptq", "autoround")


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What all are given. more: further overrides of presswork, those of the scheme too."""

    model: Path
    text: Path
    work: Path
    samples: int = 16
    length: int = 512
    windows: int = 16
    more: tuple[str, ...] = ()

    @property
    def half(self) -> Path:
        return self.work / "calibration.txt"


def processor_seconds(command: Sequence[str]) -> dict[str, float]:
    """Run a command; its wall seconds, and those of processors, its descendants' included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = launch(command, env={"HF_HUB_OFFLINE": "1"}, sampling=0.2)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {
        "processor_seconds": spent,
        "seconds": found.seconds,
        "peak_rss_bytes": found.peak_rss_bytes,
    }


def judged(setting: Setting, folder: Path) -> dict[str, float]:
    """KL and perplexity in a process of its own, by transformers alone."""
    asked = {"windows": setting.windows, "length": setting.length}
    return diverged(setting.model, folder, setting.text, **asked)


def presswork(setting: Setting, solver: str, more: Sequence[str] = ()) -> dict[str, float]:
    """One run with a fresh store, the last of which gives the tokens of the peer."""
    kind, *own = solver.split()
    folder = setting.work / re.sub(r"\W+", "-", solver)
    shutil.rmtree(folder, ignore_errors=True)
    command = on_text(
        setting.model,
        setting.half,
        folder,
        "eval=none",
        f"modifier={kind}",
        *own,
        f"dataset.num_samples={setting.samples}",
        f"dataset.sequence_length={setting.length}",
        *setting.more,
        *more,
    )
    row = processor_seconds(command)
    return row | judged(setting, folder / "run" / "checkpoint")


def auto_round(setting: Setting, python: str, options: Sequence[str]) -> dict[str, float]:
    """The peer on the tokens of presswork's last calibrated run."""
    folder = setting.work / PEER
    shutil.rmtree(folder, ignore_errors=True)
    (tokens,) = (setting.work / "autoround" / "store").rglob("tokens.safetensors")
    script = str(Path(__file__).with_name("learned_peer.py"))
    row = processor_seconds(
        [python, script, str(setting.model), str(tokens), str(folder), *options]
    )
    return row | judged(setting, folder / "model")


def verdicts(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Gap that learning closes, and KL and processor time as parts of the peer's if it ran."""
    ours, found = rows["autoround"], {}
    if "rtn" in rows:
        found["part of the KL of rounding that is closed"] = 1 - ours["kl"] / rows["rtn"]["kl"]
    if PEER in rows:
        peer = rows[PEER]
        found["KL over auto-round's"] = ours["kl"] / peer["kl"]
        found["processor time over auto-round's"] = (
            ours["processor_seconds"] / peer["processor_seconds"]
        )
    return found


def measure(
    setting: Setting, solvers: Sequence[str], python: str = "", options: Sequence[str] = ()
) -> dict[str, Any]:
    """A row for every solver, and for the peer where its `python` is given."""
    setting.work.mkdir(parents=True, exist_ok=True)
    setting.half.write_text(halves(setting.text)[0], encoding="utf-8")
    rows = {}
    for solver in solvers:
        rows[solver] = presswork(setting, solver)
        _show(solver, rows[solver])
    if python:
        rows[PEER] = auto_round(setting, python, options)
        _show(PEER, rows[PEER])
    return {"rows": rows, "verdicts": verdicts(rows) if "autoround" in rows else {}}


def _show(name: str, row: Mapping[str, float]) -> None:
    sys.stdout.write(
        f"{name:12} {row['processor_seconds']:8.1f} s of processor {row['seconds']:8.1f} s "
        f"{row['peak_rss_bytes'] / 1e9:6.2f} GB  KL {row['kl']:.4f} +- {row['kl_error']:.4f}  "
        f"perplexity {row['perplexity']:.3f} +- {row['perplexity_error']:.3f}\n"
    )
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a transformers folder")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peer", default=os.environ.get("PRESSWORK_AUTOROUND_PYTHON", ""))
    parser.add_argument("--peer-options", nargs="*", default=[], help="e.g. --iterations=200")
    parser.add_argument(
        "--solvers",
        nargs="+",
        default=SOLVERS,
        help="each with overrides of its own behind it: 'gptq a=b'",
    )
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("overrides", nargs="*", help="more of presswork's overrides")
    args = parser.parse_args()
    setting = Setting(
        model=args.model.resolve(),
        text=args.text.resolve(),
        work=args.work.resolve(),
        samples=args.samples,
        length=args.length,
        windows=args.windows,
        more=tuple(args.overrides),
    )
    found = measure(setting, args.solvers, args.peer, args.peer_options)
    for name, value in found["verdicts"].items():
        sys.stdout.write(f"{name}: {value:.3f}\n")
    (setting.work / "learned.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
