"""Pruning by each method, at one pattern and share, against llm-compressor's own.

    tests/benchmarks/setup_peer.sh FOLDER && export PRESSWORK_PEER_PYTHON=FOLDER/bin/python
    python -m tests.benchmarks.pruning --model DIR --text wiki.valid.raw --work DIR

The first half of the text calibrates (16 sequences of 512 tokens, the same for all), the second
evaluates, by transformers alone. presswork's weights are also rounded to 8 bits in groups of 64,
since it prunes what it quantizes; llm-compressor's stay as they are. SparseGPT must come before
Wanda, Wanda before magnitude, and SparseGPT within 2 % of llm-compressor's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.launch import launch, on_text
from tests.benchmarks.peer import judged
from tests.benchmarks.tokens import halves

PRUNERS = ("sparsegpt", "wanda", "magnitude")
WITHIN = 1.02
"""How much more perplexity than llm-compressor's SparseGPT is allowed."""


def ours(args: argparse.Namespace, half: Path, pruner: str) -> Path:
    """Prune by one of presswork's methods; gives the checkpoint."""
    work = args.work / f"presswork-{pruner}"
    shutil.rmtree(work, ignore_errors=True)
    command = on_text(
        args.model,
        half,
        work,
        "scheme=w8a16",
        "scheme.weights.group_size=64",
        f"modifier=[{pruner},gptq]",
        f"modifier.{pruner}.mask_structure={args.mask}",
        *([f"modifier.{pruner}.sparsity={args.sparsity}"] if args.mask == "0:0" else []),
        "dataset.num_samples=16",
        "dataset.sequence_length=512",
        "eval=none",
        *args.overrides,
    )
    launch([word for word in command if word != "scheme=w4a16_g64"])
    return work / "run" / "checkpoint"


def theirs(args: argparse.Namespace, tokens: Path, pruner: str) -> Path:
    """Prune by one of llm-compressor's methods; gives the checkpoint."""
    folder = args.work / f"peer-{pruner}"
    shutil.rmtree(folder, ignore_errors=True)
    script = str(Path(__file__).with_name("peer_pruned.py"))
    command = [args.peer, script, str(args.model), str(tokens), str(folder), "--pruner", pruner]
    command += ["--mask", args.mask, "--sparsity", str(args.sparsity)]
    launch(command, env={"HF_HUB_OFFLINE": "1"})
    return folder


def verdicts(rows: Mapping[str, float]) -> dict[str, bool]:
    """What must hold of the perplexities, by name."""
    names = [f"presswork {pruner}" for pruner in PRUNERS]
    found = {
        f"{one} before {other}": rows[one] < rows[other] for one, other in itertools.pairwise(names)
    }
    if "peer sparsegpt" in rows:
        ratio = rows["presswork sparsegpt"] / rows["peer sparsegpt"]
        found[f"sparsegpt is {ratio:.4f} of the peer's"] = ratio <= WITHIN
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a transformers folder")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peer", default=os.environ.get("PRESSWORK_PEER_PYTHON", ""))
    parser.add_argument("--mask", default="2:4", help="zeros:of, 0:0 for none")
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--windows", type=int, default=64, help="of 512 tokens, for perplexity")
    parser.add_argument("overrides", nargs="*", help="more of presswork's overrides")
    args = parser.parse_args()
    args.work, args.model = args.work.resolve(), args.model.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    half = args.work / "calibration.txt"
    half.write_text(halves(args.text)[0], encoding="utf-8")
    rows: dict[str, float] = {}

    def tell(name: str, checkpoint: Path) -> None:
        rows[name] = judged(checkpoint, args.text, args.windows)
        sys.stdout.write(f"{name:24} perplexity {rows[name]:.3f}\n")
        sys.stdout.flush()

    tell("original", args.model)
    for pruner in PRUNERS:
        tell(f"presswork {pruner}", ours(args, half, pruner))
    store = args.work / "presswork-sparsegpt" / "store"
    (tokens,) = store.rglob("tokens.safetensors")
    for pruner in ("sparsegpt", "wanda") if args.peer else ():
        tell(f"peer {pruner}", theirs(args, tokens, pruner))
    found: dict[str, Any] = {"rows": rows, "verdicts": verdicts(rows)}
    (args.work / "pruning.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, holds in found["verdicts"].items():
        sys.stdout.write(f"{'yes' if holds else 'NO ':4} {name}\n")
    return 0 if all(found["verdicts"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
