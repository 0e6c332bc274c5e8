"""A plan on many workers against the same graph with nodes that sleep as long as planned.

    python -m tests.benchmarks.simulated_workers --work DIR --text FILE --workers 64

The model is DeepSeek-V3 as transformers' config describes it (61 layers of 256 experts), without
weights; GPTQ with calibrate.propagate=original, layers in parts. Workers are processes that import
neither torch nor this project. The nodes up to the compressed layers are run, scaled so that it all
lasts `--seconds`; what saves and checks the checkpoint after them is a single node each today.
"""

from __future__ import annotations

import argparse
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.modes.plan import Planned, planned_for
from pipeline.planning.expand import towards
from pipeline.planning.plan import Plan, Step, make_plan
from pipeline.registry import Registry
from pipeline.runner.schedule import ReadyQueue
from pipeline.scheduling.machine import MachineConfig
from pipeline.scheduling.simulate import Schedule, schedule
from tests.benchmarks.random_llama import write_tokenizer
from tests.pipeline.tiny import composed

ONE_THREAD = MachineConfig(
    name="one thread of an Intel Xeon (model 6-207), as mode=measure found it",
    rates={
        "forward": 4.3e10,
        "backward": 5.0e10,
        "gram": 4.7e10,
        "factor": 1.9e10,
        "columns": float("inf"),
        "solve": 8.5e9,
        "search": 9.0e6,
        "round": 8.5e7,
        "pack": 1.1e8,
        "learn": 1.2e8,
        "product": 6.1e10,
        "copy": 4.0e8,
        "check": 1.0e8,
        "node": 5.0,
    },
    read=1.1e9,
)
SLEEPER = (
    "import sys, time\nfor line in sys.stdin:\n    time.sleep(float(line))\n    print(flush=True)"
)
BUSY, WITHIN = 0.85, 0.1


def model_folder(folder: Path) -> Path:
    """config.json and a tokenizer of DeepSeek-V3, as transformers describes it."""
    from transformers import DeepseekV3Config

    config = DeepseekV3Config(architectures=["DeepseekV3ForCausalLM"], dtype="bfloat16")
    config.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def planned(folder: Path, text: Path, work: Path, more: Sequence[str]) -> Planned:
    """The plan of the job with these overrides."""
    given = [
        "mode=plan",
        "device=cpu",
        "runner.threads=1",
        f"store.dir={work / 'store'}",
        "model=local",
        f"model.path={folder}",
        "dataset=text",
        f"dataset.path={text}",
        "scheme=w4a16",
        "eval=none",
        *more,
    ]
    cfg = composed(own_configs(), *given, name="config")
    return planned_for(load_config(cfg, Registry.load(), overrides=given))


@dataclass(kw_only=True, slots=True)
class Sleepers:
    """Worker processes that sleep for as many seconds as they are told."""

    processes: list[subprocess.Popen[str]]

    @staticmethod
    def start(count: int) -> Sleepers:
        command = [sys.executable, "-S", "-c", SLEEPER]
        made = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(count)
        ]
        return Sleepers(processes=made)

    def run(self, plan: Plan, seconds: Mapping[str, float]) -> float:
        """Run the nodes of a plan to be built, each as long as said; wall seconds of it all."""
        queue, idle = ReadyQueue(plan, chains_first=True), list(range(len(self.processes)))
        running: dict[int, str] = {}
        with selectors.DefaultSelector() as waiting:
            for number, process in enumerate(self.processes):
                if process.stdout is not None:
                    waiting.register(process.stdout, selectors.EVENT_READ, number)
            began = time.perf_counter()
            while queue.active():
                while idle and (name := queue.pop()) is not None:
                    number = idle.pop(0)
                    running[number] = name
                    self._tell(number, seconds[name])
                for key, _ in waiting.select():
                    number = int(key.data)
                    key.fileobj.readline()  # type: ignore[union-attr]  # it is a stream of text
                    queue.done(running.pop(number))
                    idle.append(number)
            return time.perf_counter() - began

    def _tell(self, number: int, seconds: float) -> None:
        stream = self.processes[number].stdin
        if stream is not None:
            stream.write(f"{seconds:.6f}\n")
            stream.flush()

    def stop(self) -> None:
        for process in self.processes:
            if process.stdin is not None:
                process.stdin.close()
            process.wait()


def on_workers(found: Planned, machine: MachineConfig, workers: int) -> tuple[Plan, Schedule]:
    """The plan up to the compressed layers, and its schedule."""

    def seconds(step: Step) -> float:
        return machine.seconds(step.node.estimate)

    plan = make_plan(towards(found.graph.graph, "compress"), lambda key: False)
    written = dict.fromkeys(plan.steps, 0)
    made = schedule(
        plan, found.transient, seconds, workers=workers, network=machine.network, written=written
    )
    return plan, made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--part", type=int, default=200_000_000, help="weights of a part")
    parser.add_argument("more", nargs="*", help="overrides, such as dataset.num_samples=8")
    given = parser.parse_args()
    parts = f"graph.nodes.compress.params.part_parameters={given.part}"
    more = (parts, "calibrate.propagate=original", "calibrate.experts=routed", *given.more)
    found = planned(model_folder(given.work / "model"), given.text, given.work, more)
    plan, expected = on_workers(found, ONE_THREAD, given.workers)
    scale = given.seconds / expected.makespan
    seconds = {name: (p.end - p.start) * scale for name, p in expected.placed.items()}
    sleepers = Sleepers.start(given.workers)
    try:
        took = sleepers.run(plan, seconds)
    finally:
        sleepers.stop()
    share = sum(seconds.values()) / (given.workers * took)
    sys.stdout.write(
        f"{len(seconds)} nodes on {given.workers} workers: planned {expected.makespan:.0f} s and "
        f"{100 * expected.share:.1f} % busy; scaled by {scale:.3g}, {given.seconds:.1f} s planned, "
        f"{took:.1f} s simulated ({took / given.seconds:.3f}), {100 * share:.1f} % busy\n"
    )
    far = abs(took / given.seconds - 1) > WITHIN or share < BUSY
    sys.stdout.write("beyond its bounds\n" if far else "within its bounds\n")


if __name__ == "__main__":
    main()
