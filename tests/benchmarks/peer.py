"""presswork against llm-compressor on the same weights and the same tokens, taking turns.

    tests/benchmarks/setup_peer.sh FOLDER && export PRESSWORK_PEER_PYTHON=FOLDER/bin/python
    python -m tests.benchmarks.peer --model DIR --text wiki.valid.raw --work DIR [--repeats 3]

The first half of the text calibrates (16 sequences of 512 tokens), the second evaluates, both
judged by transformers alone. Times are wall seconds from the start of a process to its saved
checkpoint; for presswork that includes its checks of the checkpoint. Each run has a fresh store.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.launch import launch, on_text
from tests.benchmarks.tokens import halves

RECIPES = ("default", "mse", "imatrix")
PROPAGATE = ("compressed", "original")


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What both are given. `tokens` is the file that presswork's calibration was made of."""

    model: Path
    text: Path
    half: Path
    work: Path
    peer: str
    tokens: Path
    recipes: tuple[str, ...]
    windows: int
    more: tuple[str, ...]


def presswork_command(setting: Setting, propagate: str) -> list[str]:
    return on_text(
        setting.model,
        setting.half,
        setting.work / f"presswork-{propagate}",
        "eval=none",
        "dataset.num_samples=16",
        "dataset.sequence_length=512",
        f"calibrate.propagate={propagate}",
        *setting.more,
    )


def commands(setting: Setting, batch_size: int) -> dict[str, tuple[list[str], Path, Path]]:
    """Name -> command, the folder it may use (emptied before), and where its checkpoint will be."""
    found = {}
    script = str(Path(__file__).with_name("peer_run.py"))
    for recipe in setting.recipes:
        folder = setting.work / f"peer-{recipe}"
        options = ["--recipe", recipe, "--batch-size", str(batch_size)]
        command = [setting.peer, script, str(setting.model), str(setting.tokens), str(folder)]
        found[f"peer {recipe}"] = ([*command, *options], folder, folder)
    for propagate in PROPAGATE:
        folder = setting.work / f"presswork-{propagate}"
        command = presswork_command(setting, propagate)
        found[f"presswork {propagate}"] = (command, folder, folder / "run" / "checkpoint")
    return found


def calibration_tokens(setting: Setting) -> None:
    """Copy the tokens of an unmeasured run of presswork, which also compiles what gets compiled."""
    folder = setting.work / "presswork-compressed"
    shutil.rmtree(folder, ignore_errors=True)
    launch(presswork_command(setting, "compressed"))
    (found,) = (folder / "store").rglob("tokens.safetensors")
    shutil.copyfile(found, setting.tokens)


def measure(setting: Setting, repeats: int, batch_size: int, only: str) -> dict[str, Any]:
    """Seconds and peak memory of every run in turn, and the perplexity of the last checkpoints."""
    chosen = {n: c for n, c in commands(setting, batch_size).items() if only in n}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for turn in range(repeats):
        for name, (command, folder, _) in chosen.items():
            shutil.rmtree(folder, ignore_errors=True)
            found = launch(command, env={"HF_HUB_OFFLINE": "1"}, sampling=0.2)
            row = {"seconds": found.seconds, "peak_rss_bytes": found.peak_rss_bytes}
            runs[name].append(row)
            sys.stderr.write(f"turn {turn + 1}: {name}: {found.seconds:.1f} s\n")
    rows = {}
    for name, (_, _, checkpoint) in chosen.items():
        rows[name] = {
            "seconds": statistics.median(run["seconds"] for run in runs[name]),
            "peak_rss_bytes": max(run["peak_rss_bytes"] for run in runs[name]),
            "perplexity": judged(checkpoint, setting.text, setting.windows),
            "runs": runs[name],
        }
    return rows


def judged(checkpoint: Path, text: Path, limit: int) -> float:
    """Perplexity in a process of its own, by transformers alone."""
    command = [sys.executable, "-m", "tests.benchmarks.perplexity", str(checkpoint)]
    output = launch([*command, "--text", str(text), "--limit", str(limit)], sampling=0.5).output
    return float(json.loads(output.strip().splitlines()[-1])["perplexity"])


def verdicts(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """How many times faster than the fastest recipe, and perplexity over that of the best one."""
    peers = [row for name, row in rows.items() if name.startswith("peer")]
    fastest = min(row["seconds"] for row in peers)
    best = min(row["perplexity"] for row in peers)
    found = {}
    for name, row in rows.items():
        if name.startswith("presswork"):
            found[f"{name}: times faster than the fastest recipe"] = fastest / row["seconds"]
            found[f"{name}: perplexity over the best recipe's"] = row["perplexity"] / best
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a transformers folder")
    parser.add_argument(
        "--text", type=Path, required=True, help="UTF-8 text of some 100 kB or more"
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peer", default=os.environ.get("PRESSWORK_PEER_PYTHON", ""))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=1, help="the peer's; 1 is its default")
    parser.add_argument("--only", default="", help="measure only names that contain this")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--windows", type=int, default=64, help="of 512 tokens, for perplexity")
    parser.add_argument("overrides", nargs="*", help="more of presswork's overrides")
    args = parser.parse_args()
    if not args.peer:
        parser.error("where is the peer? --peer PYTHON or PRESSWORK_PEER_PYTHON; see setup_peer.sh")
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    half = work / "calibration.txt"
    half.write_text(halves(args.text)[0], encoding="utf-8")
    setting = Setting(
        model=args.model.resolve(),
        text=args.text.resolve(),
        half=half,
        work=work,
        peer=args.peer,
        tokens=work / "tokens.safetensors",
        recipes=tuple(args.recipes),
        windows=args.windows,
        more=tuple(args.overrides),
    )
    calibration_tokens(setting)
    rows = measure(setting, args.repeats, args.batch_size, args.only)
    rows["original"] = {"perplexity": judged(setting.model, setting.text, setting.windows)}
    for name, row in rows.items():
        spent = f"{row['seconds']:8.1f} s" if "seconds" in row else " " * 10
        memory = f"{row['peak_rss_bytes'] / 1e9:6.2f} GB" if "seconds" in row else " " * 9
        sys.stdout.write(f"{name:24} {spent} {memory}  perplexity {row['perplexity']:.3f}\n")
    told = verdicts(rows) if not args.only else {}
    for name, value in told.items():
        sys.stdout.write(f"{name}: {value:.3f}\n")
    report = json.dumps({"rows": rows, "verdicts": told, "cpus": os.cpu_count()}, indent=1)
    (work / "peer.json").write_text(report + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
