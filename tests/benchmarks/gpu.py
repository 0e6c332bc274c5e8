"""presswork on a GPU: the same results as on a CPU, and its speed beside llm-compressor's.

    tests/benchmarks/gpu_wheels.sh .whl       # here: what a machine without network lacks
    pip install -q --no-index --no-deps --target /tmp/site .whl/*.whl   # there, once
    PYTHONPATH=/tmp/site python3 -m tests.benchmarks.gpu --work /tmp/work --part schemes
    PYTHONPATH=/tmp/site python3 -m tests.benchmarks.gpu --work /tmp/work --part w4a16
    PYTHONPATH=/tmp/site python3 -m tests.benchmarks.gpu --work /tmp/work --part nvfp4 fp8_dynamic

Each call takes less than four minutes (`--seconds`): what would begin later is left out, and the
table says so. It prints one table last and writes it to `--out` as well. The CPU's side of
`schemes` can be made before, on any machine: `--part reference --reference FILE`.

`--dry-run` does all of it in small, on the CPU.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

from pipeline.machine.gpus import driver_version, gpu_of
from pipeline.report.result import versions
from tests.benchmarks import gpu_goals, gpu_peer, gpu_schemes
from tests.benchmarks.random_llama import TINY

PARTS = ("schemes", *gpu_peer.SCHEMES)
DRY_SCHEMES = ("w4a16", "fp8")


def header(device: str) -> str:
    """Machine, GPU and versions, in one line."""
    gpu, found = gpu_of(device), versions()
    shown = ("torch", "triton", "transformers", "compressed-tensors")
    where = f"{gpu.name}, {gpu.architecture}, {driver_version()}" if gpu else platform.machine()
    libraries = ", ".join(f"{name} {found[name]}" for name in shown if name in found)
    return f"{device}: {where}; {os.cpu_count()} CPUs; {libraries}"


def setting_of(args: argparse.Namespace) -> gpu_peer.Setting:
    setting = gpu_peer.Setting(
        work=args.work / "peer",
        device=args.device,
        peer=args.peer,
        batch_size=args.batch_size,
        more=tuple(args.overrides),
    )
    if not args.dry_run:
        return setting
    return replace(setting, shape=TINY, layers=(2, 4), samples=4, length=64)


def measure(args: argparse.Namespace) -> tuple[str, bool]:
    """The table of the parts that were asked for, and whether all of it is as it must be."""
    began, told, good = time.perf_counter(), [header(args.device)], True
    if {"schemes", "reference"} & set(args.part):
        rows = gpu_schemes.measure(
            args.work / "schemes",
            device="cpu" if "reference" in args.part else args.device,
            seconds=args.seconds,
            reference=args.reference,
            schemes=tuple(args.schemes),
            more=tuple(args.overrides),
        )
        told.append(gpu_schemes.table(rows))
        good = good and all(row.ok for row in rows)
    compared = [part for part in args.part if part in gpu_peer.SCHEMES]
    if compared:
        setting = setting_of(args)
        gpu_peer.prepare(setting)
        found = [gpu_peer.compare(setting, part, began + args.seconds) for part in compared]
        goals = [goal for each in found for goal in gpu_goals.goals(each)]
        told += [gpu_peer.table(found), gpu_goals.table(goals)]
        good = good and all(goal.met for goal in goals)
    told.append(f"{time.perf_counter() - began:.0f} s in all")
    return "\n\n".join(told), good


def parsed(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--part", nargs="+", choices=(*PARTS, "reference"), default=list(PARTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=220.0)
    parser.add_argument("--reference", type=Path, help="errors of the CPU by job, as JSON")
    parser.add_argument("--schemes", nargs="+", default=[], help="only these, in the part schemes")
    parser.add_argument("--peer", default=gpu_peer.peer_python(), help="Python of llm-compressor")
    parser.add_argument("--batch-size", type=int, default=4, help="sequences at once, for both")
    parser.add_argument("--out", type=Path, help="a file for the table")
    parser.add_argument("--dry-run", action="store_true", help="all of it in small, on the CPU")
    parser.add_argument("overrides", nargs="*", help="more of presswork's overrides, after --")
    args = parser.parse_args(words)
    args.work = args.work.resolve()
    if args.dry_run:
        args.device, args.schemes = "cpu", args.schemes or list(DRY_SCHEMES)
    return args


def main(words: list[str] | None = None) -> int:
    args = parsed(words)
    text, good = measure(args)
    sys.stdout.write(f"\n{text}\n")
    if args.out is not None:
        args.out.write_text(text + "\n", encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
