"""Does peak memory grow with depth? Compresses two random llamas that differ in depth only.

`python -m tests.benchmarks.memory --work DIR` makes them (4 GB of disk), compresses each in a
fresh process and store, and prints the peak resident memory of its process tree.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from tests.benchmarks.launch import launch, on_text
from tests.benchmarks.random_llama import Shape, write_model

MOST_GROWTH = 1.10
MOST_BYTES = 2_500_000_000


def text_of_bytes(path: Path, count: int) -> Path:
    """A text of at least `count` bytes, which are as many tokens to the random models."""
    line = "All work and no play makes a model a dull table of numbers, line {}.\n"
    lines = (line.format(n) for n in range(count // 60 + 1))
    path.write_text("".join(lines), encoding="utf-8")
    return path


def peak_of(
    model: Path, text: Path, work: Path, *, samples: int, length: int, more: tuple[str, ...]
) -> dict[str, float]:
    """Peak bytes and seconds of one compression without evaluation, in a fresh store."""
    shutil.rmtree(work, ignore_errors=True)
    sizes = (f"dataset.num_samples={samples}", f"dataset.sequence_length={length}")
    found = launch(on_text(model, text, work, "eval=none", *sizes, *more))
    return {"peak_rss_bytes": found.peak_rss_bytes, "seconds": found.seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--layers", type=int, nargs=2, default=(8, 32))
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--intermediate", type=int, default=5632)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("overrides", nargs="*", help="more of presswork's overrides")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    text = text_of_bytes(args.work / "text.txt", 4 * args.samples * args.length)
    peaks = {}
    for layers in args.layers:
        folder = args.work / f"llama-{args.hidden}-{layers}"
        shape = Shape(layers=layers, hidden=args.hidden, intermediate=args.intermediate)
        if not (folder / "config.json").exists():
            write_model(folder, shape)
        found = peak_of(
            folder,
            text,
            args.work / "run",
            samples=args.samples,
            length=args.length,
            more=tuple(args.overrides),
        )
        peaks[layers] = found["peak_rss_bytes"]
        sys.stdout.write(
            f"{layers:>4} layers  peak {found['peak_rss_bytes'] / 1e9:.2f} GB"
            f"  {found['seconds']:.1f} s\n"
        )
    few, many = (peaks[layers] for layers in args.layers)
    good = many <= MOST_GROWTH * few and many < MOST_BYTES
    report = {"peak_rss_bytes": peaks, "growth": many / few, "ok": good}
    sys.stdout.write(json.dumps(report) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
