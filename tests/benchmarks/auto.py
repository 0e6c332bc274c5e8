"""Does the choice under a budget beat uniform schemes? By KL and perplexity on half of a text.

    python -m tests.benchmarks.auto --work DIR --model MODEL --text wiki.valid.raw

Every scheme is compressed by GPTQ with 16 x 512 tokens of the first half, all from one store;
`tests.benchmarks.divergence` judges, by transformers alone. For each budget the choice must have a
smaller KL divergence from the original than every uniform scheme from half a bit below the budget
to a quarter above it: integers of 4 to 6 bits, symmetric or not, in groups that fit, NVFP4, MXFP4.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.launch import diverged, launch, on_text, result_of

GROUPS = (32, 64, 96, 192)
CANDIDATES = ("w3a16", "w4a16", "w4a16_asym", "nvfp4a16", "w6a16", "w8a16")
CANDIDATE_GROUPS = (32, 64)
BUDGETS = (4.5,)
BELOW, ABOVE = 0.5, 0.25
"""How many bits below and above the budget a rival may be."""
FIXED = {"nvfp4a16": 4.5, "mxfp4a16": 4.25}
"""Rivals whose groups have one size, with their bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One scheme: bits per weight of the modules that are quantized, and what a judge says."""

    name: str
    bits: float
    kl: float
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
    judged = diverged(args.model, folder / "run/checkpoint", args.text, windows=args.limit)
    return Outcome(
        name=name,
        bits=bits_of(result["layers"], args.model),
        kl=judged["kl"],
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


def rivals(budget: float) -> dict[str, tuple[str, ...]]:
    """Name -> overrides of the uniform schemes near a budget."""
    found = {name: (f"scheme={name}",) for name, bits in FIXED.items() if near(bits, budget)}
    for bits, group in ((bits, group) for bits in (4, 5, 6) for group in GROUPS):
        for name, each in ((f"w{bits}a16", bits + 16 / group), *asymmetric(bits, group)):
            if near(each, budget):
                size = f"scheme.weights.group_size={group}"
                found[f"{name}-g{group}"] = (f"scheme={name}", size)
    return found


def asymmetric(bits: int, group: int) -> list[tuple[str, float]]:
    """The asymmetric scheme of 4 bits, whose zero points have as many."""
    return [("w4a16_asym", bits + (16 + bits) / group)] if bits == 4 else []


def near(bits: float, budget: float) -> bool:
    return budget - BELOW <= bits + 0.01 and bits <= budget + ABOVE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=64, help="judge on so many windows of 512")
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS)
    parser.add_argument("overrides", nargs="*", help="more of presswork's overrides for auto")
    args = parser.parse_args()
    choose = [
        "scheme=auto",
        f"scheme.candidates=[{','.join(CANDIDATES)}]",
        f"scheme.group_sizes=[{','.join(map(str, CANDIDATE_GROUPS))}]",
        *args.overrides,
    ]
    good = True
    for budget in args.budgets:
        auto = run(args, f"auto-{budget}", *choose, f"scheme.budget.bits_per_weight={budget}")
        tell(auto)
        for name, words in rivals(budget).items():
            rival = run(args, name, *words)
            tell(rival)
            good &= auto.kl < rival.kl
        good &= auto.bits <= budget
    return 0 if good else 1


def tell(outcome: Outcome) -> None:
    sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
