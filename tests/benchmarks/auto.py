"""Does the choice under a budget beat uniform schemes? Perplexity on the second half of a text.

    python -m tests.benchmarks.auto --work DIR --model MODEL --text wiki.valid.raw

Every scheme is compressed by GPTQ with 16 x 512 tokens of the first half, all from one store;
`tests.benchmarks.perplexity` judges, by transformers alone. For each budget the uniform schemes up
to 0.6 bits above it are told; the choice must beat the one that comes next at or above it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.launch import launch, on_text, result_of

GROUPS = (32, 64, 96, 192)
CANDIDATES = ("w3a16", "w4a16", "w5a16", "w6a16", "w8a16")
BUDGETS = (4.5, 6.0)
ABOVE = 0.6
"""How many bits above the budget a rival may be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One scheme: bits per weight of the modules that are quantized, and what a judge says."""

    name: str
    bits: float
    perplexity: float
    seconds: float
    nodes_built: int


def run(args: argparse.Namespace, name: str, *overrides: str) -> Outcome:
    """Compress with these overrides and judge the checkpoint."""
    folder = args.work / name
    shared = (
        "dataset.part=calibration",
        "dataset.num_samples=16",
        "dataset.sequence_length=512",
        "calibrate.propagate=original",
        "eval=none",
        f"store.dir={args.work / 'store'}",
    )
    words = on_text(args.model, args.text, folder, *shared, *overrides)
    words = [word for word in words if word != "scheme=w4a16_g64"]
    took = launch(words)
    result = result_of(folder / "run")
    judge = [sys.executable, "-m", "tests.benchmarks.perplexity", str(folder / "run/checkpoint")]
    judge += ["--text", str(args.text)]
    if args.limit:
        judge += ["--limit", str(args.limit)]
    judged = json.loads(launch(judge).output.splitlines()[-1])
    return Outcome(
        name=name,
        bits=bits_of(result["layers"], args.model),
        perplexity=judged["perplexity"],
        seconds=took.seconds,
        nodes_built=sum(node["status"] == "built" for node in result["nodes"]),
    )


def bits_of(layers: Sequence[dict[str, object]], model: Path) -> float:
    """Bits of all quantized modules over the number of their weights."""
    from safetensors import safe_open

    sizes: dict[str, int] = {}
    for path in model.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                shape = file.get_slice(name).get_shape()
                sizes[name.removesuffix(".weight")] = shape[0] * (shape[1] if shape[1:] else 1)
    weights = sum(sizes[str(row["name"])] for row in layers)
    return sum(float(str(row["bits"])) * sizes[str(row["name"])] for row in layers) / weights


def rivals(budget: float) -> list[tuple[str, int]]:
    """(scheme, group size) of uniform schemes of `budget` bits or a little more, smallest first."""
    sizes = {
        (name, group): int(name[1]) + 16 / group
        for name in ("w4a16", "w5a16", "w6a16")
        for group in GROUPS
    }
    near = [key for key, bits in sizes.items() if budget <= bits + 0.01 <= budget + ABOVE]
    return sorted(near, key=sizes.__getitem__)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=None, help="judge on so many windows of 512")
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS)
    parser.add_argument("overrides", nargs="*", help="more of presswork's overrides for auto")
    args = parser.parse_args()
    choose = [
        "scheme=auto",
        f"scheme.candidates=[{','.join(CANDIDATES)}]",
        f"scheme.group_sizes=[{','.join(map(str, GROUPS))}]",
        *args.overrides,
    ]
    good = True
    for budget in args.budgets:
        auto = run(args, f"auto-{budget}", *choose, f"scheme.budget.bits_per_weight={budget}")
        tell(auto)
        for place, (name, group) in enumerate(rivals(budget)):
            size = f"scheme.weights.group_size={group}"
            rival = run(args, f"{name}-g{group}", f"scheme={name}", size)
            tell(rival)
            if place == 0:
                good &= auto.perplexity < rival.perplexity and auto.bits <= rival.bits
    return 0 if good else 1


def tell(outcome: Outcome) -> None:
    sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
