"""Eight jobs in one sweep, against the slowest of them alone and eight runs of llm-compressor.

    tests/benchmarks/setup_peer.sh FOLDER && export PRESSWORK_PEER_PYTHON=FOLDER/bin/python
    python -m tests.benchmarks.eight_jobs --model DIR --text wiki.valid.raw --work DIR [--turns 2]

Group sizes 32, 64, 96 and 192, each by round-to-nearest and by GPTQ, 4 bits, 16 sequences of 512
tokens, calibrated on the original model's activations, by both. A turn of presswork is every job
alone and the sweep of all, each with a fresh store; the runs of llm-compressor are spread between
the turns. Without --peer, only presswork is measured. With --peer-jobs N, llm-compressor runs N of
the eight: the sweep is then at least so many times faster, for the others would only add to it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from tests.benchmarks.launch import as_sweep, launch, on_text, result_of

SIZES = (32, 64, 96, 192)
SOLVERS = ("gptq", "rtn")
LAUNCHERS = {
    "basic": (),
    "joblib": (
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "+hydra.job.env_set.OMP_WAIT_POLICY=passive",  # two processes want the same cores
    ),
}
MOST_RATIO = 1.8
LEAST_FASTER = 6.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What every run is given; `more` are presswork's further overrides."""

    model: Path
    text: Path
    work: Path
    sizes: tuple[int, ...]
    launcher: str
    more: tuple[str, ...]

    @property
    def jobs(self) -> list[tuple[str, int]]:
        return list(product(SOLVERS, self.sizes))


def command(setting: Setting, folder: Path, solvers: str, sizes: str, *more: str) -> list[str]:
    """presswork on these solvers and group sizes, everything it writes below `folder`."""
    shared = ["dataset.part=calibration", "dataset.num_samples=16", "dataset.sequence_length=512"]
    shared += ["calibrate.propagate=original", "eval=none", *setting.more]
    chosen = [f"scheme.weights.group_size={sizes}", f"modifier={solvers}"]
    return on_text(setting.model, setting.text, folder, *shared, *chosen, *more)


def alone(setting: Setting, solver: str, size: int) -> float:
    """Seconds of one job with a fresh store; its folder stays."""
    folder = setting.work / f"{solver}-{size}"
    shutil.rmtree(folder, ignore_errors=True)
    return launch(command(setting, folder, solver, str(size)), sampling=0.5).seconds


def sweep(setting: Setting) -> float:
    """Seconds of all jobs in one sweep with a fresh store; its folder stays."""
    folder = setting.work / "sweep"
    shutil.rmtree(folder, ignore_errors=True)
    sizes = ",".join(map(str, setting.sizes))
    how = [f"hydra.sweep.dir={folder}/jobs", *LAUNCHERS[setting.launcher]]
    given = command(setting, folder, ",".join(SOLVERS), sizes, *how)
    return launch(as_sweep(given), sampling=0.5).seconds


def peer(setting: Setting, python: str, solver: str, size: int) -> float:
    """Seconds of one run of llm-compressor on the tokens that presswork calibrated with."""
    out = setting.work / "peer"
    shutil.rmtree(out, ignore_errors=True)
    (tokens,) = (setting.work / "sweep" / "store").rglob("tokens.safetensors")
    script = str(Path(__file__).with_name("peer_run.py"))
    options = ["--original", "--solver", solver, "--group-size", str(size)]
    return launch(
        [python, script, str(setting.model), str(tokens), str(out), *options],
        env={"HF_HUB_OFFLINE": "1"},
        sampling=0.5,
    ).seconds


def measure(setting: Setting, turns: int, python: str, peer_jobs: int) -> dict[str, Any]:
    """Seconds of everything; the medians' ratios."""
    singles: dict[str, list[float]] = {f"{s} {g}": [] for s, g in setting.jobs}
    sweeps: list[float] = []
    peers: dict[str, float] = {}
    asked = setting.jobs[:peer_jobs] if python else []
    for turn in range(turns):
        for solver, size in setting.jobs:
            singles[f"{solver} {size}"].append(alone(setting, solver, size))
            tell(f"turn {turn + 1}: {solver} {size} alone", singles[f"{solver} {size}"][-1])
        sweeps.append(sweep(setting))
        tell(f"turn {turn + 1}: sweep of {len(setting.jobs)}", sweeps[-1])
        for solver, size in asked[turn::turns]:
            peers[f"{solver} {size}"] = peer(setting, python, solver, size)
            tell(f"turn {turn + 1}: llm-compressor {solver} {size}", peers[f"{solver} {size}"])
    slowest = max(statistics.median(seconds) for seconds in singles.values())
    swept = statistics.median(sweeps)
    return {
        "singles": singles,
        "sweeps": sweeps,
        "peers": peers,
        "over_the_slowest_job": swept / slowest,
        "times_faster": sum(peers.values()) / swept if peers else None,
        "at_least": len(peers) < len(setting.jobs),
        "built_more_than_once": list(built_twice(setting)),
    }


def built_twice(setting: Setting) -> Iterator[str]:
    """Steps before compress that more than one job of the sweep built."""
    folder = setting.work / "sweep" / "jobs"
    jobs = [result_of(folder / str(number)) for number in range(len(setting.jobs))]
    seen: set[str] = set()
    for node in (node for job in jobs for node in job["nodes"] if node["status"] == "built"):
        if node["name"].startswith(("load", "patch", "tokens", "calibrate")):
            if node["name"] in seen:
                yield node["name"]
            seen.add(node["name"])


def tell(name: str, seconds: float) -> None:
    sys.stderr.write(f"{name}: {seconds:.1f} s\n")
    sys.stderr.flush()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a transformers folder")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peer", default=os.environ.get("PRESSWORK_PEER_PYTHON", ""))
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--launcher", choices=sorted(LAUNCHERS), default="basic")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--peer-jobs", type=int, default=8, help="GPTQ's come first")
    parser.add_argument("overrides", nargs="*", help="more of presswork's overrides")
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    setting = Setting(
        model=args.model.resolve(),
        text=args.text.resolve(),
        work=args.work.resolve(),
        sizes=tuple(args.sizes),
        launcher=args.launcher,
        more=tuple(args.overrides),
    )
    found = measure(setting, args.turns, args.peer, args.peer_jobs)
    good = found["over_the_slowest_job"] <= MOST_RATIO and not found["built_more_than_once"]
    good &= found["times_faster"] is None or found["times_faster"] >= LEAST_FASTER
    sys.stdout.write(json.dumps({**found, "ok": good}, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
