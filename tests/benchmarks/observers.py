"""Seconds that observers take on a weight, beside llm-compressor's, taking turns.

    tests/benchmarks/setup_peer.sh DIR && export PRESSWORK_PEER_PYTHON=DIR/bin/python
    python -m tests.benchmarks.observers --work DIR --rows 4096 --columns 4096

Both get the same random bfloat16 weight. One turn is a process that observes `--rounds` times after
a warm-up; turns alternate, and the medians over all rounds are printed as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.launch import launch

SCRIPT = Path(__file__).parents[1] / "differential" / "peer_observers.py"
NAMES = {
    "minmax": "memoryless_minmax",
    "mse": "memoryless_mse",
    "imatrix": "imatrix_mse",
    "nvfp4_expanded_mse": "nvfp4_expanded_mse",
    "nvfp4_expanded_imatrix": "nvfp4_expanded_imatrix",
}
"""Our observer -> theirs."""
PRESETS = ("W4A16", "W4A16_ASYM", "W8A8", "FP8", "FP8_BLOCK", "NVFP4A16", "MXFP4A16")

Wanted = list[tuple[str, str, dict[str, Any]]]
"""(key, our observer, args) of all that is timed."""


def pairs(presets: list[str], observers: list[str]) -> Wanted:
    """What there is of these observers for the weights of these presets."""
    from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme

    found = []
    for preset in presets:
        args = preset_name_to_scheme(preset, ["Linear"]).weights
        for observer in observers:
            wide, whole = observer.startswith("nvfp4"), preset in ("FP8", "FP8_BLOCK")
            if (wide and preset != "NVFP4A16") or ("imatrix" in observer and whole):
                continue
            found.append((f"{preset}/{observer}", observer, args.model_dump(mode="json")))
    return found


def prepare(path: Path, rows: int, columns: int, wanted: Wanted) -> None:
    """Write the weight, the mean squares of its inputs, and what is to be timed, for the peer."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(rows, columns, generator=generator) * 0.05).bfloat16()
    squares = torch.rand(columns, generator=generator) + 0.1
    theirs = [(key, NAMES[name], args) for key, name, args in wanted]
    tensors = {"weight": weight, "squares": squares}
    save_file(tensors, path, metadata={"wanted": json.dumps(theirs)})


def ours(given: Path, rounds: int, threads: int, wanted: Wanted) -> dict[str, list[float]]:
    """Seconds of every round of ours by key."""
    import torch
    from compressed_tensors.quantization import QuantizationArgs
    from safetensors.torch import load_file

    from stages.compress.grid import grid_of
    from stages.compress.observers.catalog import OBSERVERS

    torch.set_num_threads(threads)
    read = load_file(given)
    found: dict[str, list[float]] = {}
    for key, observer, options in wanted:
        args = QuantizationArgs.model_validate(options)
        importance = read["squares"] if "imatrix" in observer else None
        seconds = []
        for _ in range(rounds + 1):  # the first one warms up
            began = time.perf_counter()
            OBSERVERS[observer](read["weight"], grid_of(args), importance=importance)
            seconds.append(time.perf_counter() - began)
        found[key] = seconds[1:]
    return found


def measure(
    work: Path,
    *,
    rows: int,
    columns: int,
    turns: int,
    rounds: int,
    threads: int,
    presets: list[str],
    observers: list[str],
) -> dict[str, dict[str, float]]:
    """Medians of both in seconds, by key, and theirs over ours as `factor`."""
    from safetensors.torch import load_file

    given, out, own = work / "in.safetensors", work / "out.safetensors", work / "own.json"
    work.mkdir(parents=True, exist_ok=True)
    prepare(given, rows, columns, pairs(presets, observers))
    found: dict[str, dict[str, list[float]]] = {}
    peer = os.environ["PRESSWORK_PEER_PYTHON"]
    asked = ["--timed", str(rounds), "--threads", str(threads)]
    mine = ["--rounds", str(rounds), "--threads", str(threads)]
    mine += ["--presets", *presets, "--observers", *observers]
    for _ in range(turns):
        launch(
            [
                sys.executable,
                "-m",
                "tests.benchmarks.observers",
                "--work",
                str(work),
                "--only",
                str(own),
                *mine,
            ]
        )
        for key, seconds in json.loads(own.read_text(encoding="utf-8")).items():
            found.setdefault(key, {"ours": [], "theirs": []})["ours"] += seconds
        launch([peer, str(SCRIPT), str(given), str(out), *asked])
        for key, seconds in load_file(out).items():
            found[key.removesuffix(".seconds")]["theirs"] += seconds.tolist()
    medians = {
        key: {side: statistics.median(values) for side, values in sides.items()}
        for key, sides in found.items()
    }
    return {key: {**m, "factor": m["theirs"] / m["ours"]} for key, m in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=4096)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--observers", nargs="+", default=list(NAMES), choices=list(NAMES))
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    only, work = given.pop("only"), given.pop("work")
    if only is not None:  # one turn of ours, in a process of its own
        wanted = pairs(given["presets"], given["observers"])
        timed = ours(work / "in.safetensors", given["rounds"], given["threads"], wanted)
        only.write_text(json.dumps(timed), encoding="utf-8")
        return
    sys.stdout.write(json.dumps(measure(work, **given), indent=1) + "\n")


if __name__ == "__main__":
    main()
