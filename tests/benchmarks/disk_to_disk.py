"""From disk to disk: `cp` of a checkpoint, presswork without data, llm-compressor's model_free_ptq.

    tests/benchmarks/setup_peer.sh FOLDER && export PRESSWORK_PEER_PYTHON=FOLDER/bin/python
    python -m tests.benchmarks.disk_to_disk --work DIR --gigabytes 4 --repeats 3
    python -m tests.benchmarks.disk_to_disk --work DIR --gigabytes 8 --width 16384 --repeats 1
    python -m tests.benchmarks.disk_to_disk --work DIR --schemes nvfp4a16 mxfp4a16 --repeats 1

The checkpoint is a random llama in bfloat16, one shard for each layer. All take turns; before each
turn the checkpoint is read once, so that all find it in the page cache. Times are wall seconds
from the start of a process to its end; for presswork they include hashing the source, its fresh
store and its checks of what it wrote. The memory of hashes is a fresh one each time. What numba
compiles is compiled before.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.benchmarks.launch import launch, presswork
from tests.benchmarks.random_llama import TINY, Shape, write_model

SCHEMES = ("fp8_dynamic", "w4a16")
"""Of ours; the peer has presets of the same names in capitals."""
SETTLE = 5.0
"""Seconds for the disk to be done with what the command before has written and was removed."""


def sized(gigabytes: float, width: int | None = None) -> Shape:
    """A llama of about so many gigabytes; narrower where a few wide layers would be too many."""
    width = width or (4096 if gigabytes >= 2 else 1024)
    heads, inner = width // 128, 11 * width // 4
    shape = Shape(
        hidden=width,
        intermediate=inner,
        heads=heads,
        kv_heads=heads,
        vocab=32000 if gigabytes >= 2 else 4096,
    )
    layer = 2 * (4 * width * width + 3 * width * inner)
    ends = 4 * shape.vocab * width
    return replace(shape, layers=max(1, round((gigabytes * 1e9 - ends) / layer)))


def commands(
    model: Path, work: Path, peer: str, schemes: Sequence[str], more: Sequence[str]
) -> dict[str, tuple[list[str], Path]]:
    """Name -> command, and the folder that it may use (emptied before)."""
    found = {"cp": (["cp", "-r", str(model), str(work / "cp")], work / "cp")}
    script = str(Path(__file__).with_name("disk_to_disk_peer.py"))
    for scheme in schemes:
        mine, theirs = work / f"presswork-{scheme}", work / f"peer-{scheme}"
        command = presswork(
            "graph=data_free",
            "model=local",
            f"model.path={model}",
            f"scheme={scheme}",
            "modifier=rtn",
            "eval=none",
            f"store.dir={mine / 'store'}",
            f"hydra.run.dir={mine / 'run'}",
            *more,
        )
        found[f"presswork {scheme}"] = (command, mine)
        if peer:
            found[f"peer {scheme}"] = (
                [peer, script, str(model), str(theirs), scheme.upper()],
                theirs,
            )
    return found


def measure(
    chosen: Mapping[str, tuple[list[str], Path]], model: Path, work: Path, repeats: int
) -> dict[str, Any]:
    """Median seconds and largest peak memory of every command, in turn."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for turn in range(repeats):
        for name, (command, folder) in chosen.items():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(work / "cache", ignore_errors=True)
            os.sync()
            time.sleep(SETTLE)
            warm(model)
            env = {"HF_HUB_OFFLINE": "1"}
            if name.startswith("presswork"):
                env["XDG_CACHE_HOME"] = str(work / "cache")
            found = launch(command, env=env, sampling=0.2)
            row = {"seconds": found.seconds, "peak_rss_bytes": found.peak_rss_bytes}
            runs[name].append(row)
            sys.stderr.write(f"turn {turn + 1}: {name}: {found.seconds:.2f} s\n")
    return {
        name: {
            "seconds": statistics.median(row["seconds"] for row in rows),
            "peak_rss_bytes": max(row["peak_rss_bytes"] for row in rows),
            "runs": rows,
        }
        for name, rows in runs.items()
    }


def compile_kernels(work: Path, schemes: Sequence[str], more: Sequence[str]) -> None:
    """An unmeasured run on a tiny model: what is compiled is compiled once for an installation."""
    tiny = work / "tiny"
    if not tiny.is_dir():
        write_model(tiny, TINY)
    for name, (command, folder) in commands(tiny, work, "", schemes, more).items():
        if name.startswith("presswork"):
            shutil.rmtree(folder, ignore_errors=True)
            launch(command)


def warm(model: Path) -> None:
    """Read every file, so that it is in the page cache."""
    buffer = bytearray(1 << 23)
    for path in sorted(model.iterdir()):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def verdicts(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Seconds over those of cp, and times faster than the peer."""
    found = {}
    for scheme in (name.partition(" ")[2] for name in rows if name.startswith("presswork ")):
        mine = rows[f"presswork {scheme}"]["seconds"]
        found[f"{scheme}: seconds over those of cp"] = mine / rows["cp"]["seconds"]
        if f"peer {scheme}" in rows:
            theirs = rows[f"peer {scheme}"]["seconds"]
            found[f"{scheme}: times faster than model_free_ptq"] = theirs / mine
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--width", type=int, help="hidden size, a multiple of 128")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", default=os.environ.get("PRESSWORK_PEER_PYTHON", ""))
    parser.add_argument("--schemes", nargs="+", default=SCHEMES)
    parser.add_argument("overrides", nargs="*", help="more of presswork's overrides")
    args = parser.parse_args()
    work = args.work.resolve()
    name = f"llama-{args.gigabytes:g}" + (f"-{args.width}" if args.width else "")
    model = work / name
    if not model.is_dir():
        write_model(model, sized(args.gigabytes, args.width))
    compile_kernels(work, args.schemes, args.overrides)
    chosen = commands(model, work, args.peer, args.schemes, args.overrides)
    rows = measure(chosen, model, work, args.repeats)
    for name, row in rows.items():
        memory = row["peak_rss_bytes"] / 1e9
        sys.stdout.write(f"{name:24} {row['seconds']:8.2f} s {memory:6.2f} GB\n")
    told = verdicts(rows)
    for name, value in told.items():
        sys.stdout.write(f"{name}: {value:.2f}\n")
    report = json.dumps({"rows": rows, "verdicts": told, "cpus": os.cpu_count()}, indent=1)
    (work / "disk_to_disk.json").write_text(report + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
