"""Planned against measured seconds of nodes, on small random llamas on this machine.

    python -m tests.benchmarks.cost_model --work DIR --text FILE

For each shape: `mode=measure`, then a run of GPTQ with one thread. The seconds of its nodes are set
against those that the measured speeds give for the work in its plan.json, kind by kind. A run
before all others compiles what numba compiles.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

from pipeline.scheduling.machine import FILE, MachineConfig
from pipeline.stage import Estimate
from tests.benchmarks.launch import launch, on_text, presswork, result_of
from tests.benchmarks.random_llama import TINY, Shape, write_model

SHAPES = {
    "512 x 4": Shape(layers=4, hidden=512, intermediate=1408, heads=8, kv_heads=4),
    "768 x 4": Shape(layers=4, hidden=768, intermediate=2048, heads=12, kv_heads=4),
    "1024 x 4": Shape(layers=4, hidden=1024, intermediate=2816, heads=16, kv_heads=4),
    "1536 x 3": Shape(layers=3, hidden=1536, intermediate=4096, heads=16, kv_heads=8),
}
KINDS = ("calibrate", "compress", "propagate")
WITHIN = 0.3


def compared(model: Path, text: Path, work: Path) -> dict[str, tuple[float, float]]:
    """Kind of node -> planned and measured seconds of all of them; `all` is their sum."""
    settings = ("runner.threads=1", "runner.workers=1", "eval=none")
    launch(presswork("mode=measure", "runner.threads=1", f"store.dir={work / 'store'}"))
    launch(on_text(model, text, work, *settings))
    machine = MachineConfig(**json.loads((work / "store" / FILE).read_text(encoding="utf-8")))
    rows = json.loads((work / "run" / "plan.json").read_text(encoding="utf-8"))
    took = {node["name"]: node["seconds"] for node in result_of(work / "run")["nodes"]}
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in rows:
        if row["status"] != "build" or row["kind"] not in KINDS:
            continue
        cost = Estimate(
            seconds=row["estimate"]["seconds"],
            work=row["estimate"]["work"],
            reads=row["estimate"]["reads"],
        )
        for kind in (row["kind"], "all"):
            found[kind][0] += machine.seconds(cost)
            found[kind][1] += took[row["name"]]
    return {kind: (planned, measured) for kind, (planned, measured) in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    given = parser.parse_args()
    tiny = write_model(given.work / "tiny" / "model", TINY)
    launch(on_text(tiny, given.text, given.work / "tiny", "runner.threads=1", "eval=none"))
    far = []
    for name in given.shapes:
        work = given.work / name.replace(" ", "")
        model = write_model(work / "model", SHAPES[name])
        for kind, (planned, measured) in sorted(compared(model, given.text, work).items()):
            ratio = planned / measured
            seconds = f"planned {planned:7.2f} s, measured {measured:7.2f} s: {ratio:.2f}"
            sys.stdout.write(f"{name:10} {kind:10} {seconds}\n")
            sys.stdout.flush()
            if kind == "all" and abs(ratio - 1) > WITHIN:
                far.append(name)
    sys.stdout.write(f"beyond {100 * WITHIN:.0f} %: {', '.join(far) or 'none'}\n")


if __name__ == "__main__":
    main()
