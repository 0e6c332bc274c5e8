"""KL to the original and perplexity of a checkpoint, with standard errors, by transformers alone.

`python -m tests.benchmarks.divergence ORIGINAL FOLDER --text wiki.valid.raw` evaluates the second
half of the text in windows without overlap and prints one line of JSON, with the KL of `each`.
Standard errors take each window for one draw: neighbouring tokens are not independent. It imports
nothing of presswork.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from tests.benchmarks.tokens import halves, windows


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """Means per window: KL(original || compressed) and the negative log-likelihood, in nats."""

    kl: Sequence[float]
    loss: Sequence[float]

    def summary(self) -> dict[str, float]:
        """KL and perplexity with their standard errors, and how many windows there were."""
        perplexity = math.exp(fmean(self.loss))
        return {
            "kl": fmean(self.kl),
            "kl_error": standard_error(self.kl),
            "perplexity": perplexity,
            "perplexity_error": perplexity * standard_error(self.loss),  # d exp(x) = exp(x) dx
            "windows": len(self.kl),
        }


def standard_error(values: Sequence[float]) -> float:
    """Of the mean; 0 for a single value, of which nothing can be said."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def load(folder: Path) -> Any:
    """The model in float32, decompressed where it is compressed."""
    from transformers import AutoConfig, AutoModelForCausalLM, CompressedTensorsConfig

    options = {}
    if getattr(AutoConfig.from_pretrained(folder), "quantization_config", None):
        options["quantization_config"] = CompressedTensorsConfig(run_compressed=False)
    # half precision would only add noise, and is slow on many CPUs
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto", **options).eval().float()


def judge(original: Path, folder: Path, text: Path, *, length: int, limit: int | None) -> Judged:
    """Both models on the same windows of `length` tokens, at most `limit` of them."""
    import torch
    from transformers import AutoTokenizer

    first, second = load(original), load(folder)
    tokenizer = AutoTokenizer.from_pretrained(original)
    kl, loss = [], []
    with torch.inference_mode():
        for row in windows(tokenizer, halves(text)[1], length, limit).split(1):
            a = first(input_ids=row, use_cache=False).logits[0, :-1].log_softmax(dim=-1)
            b = second(input_ids=row, use_cache=False).logits[0, :-1].log_softmax(dim=-1)
            kl.append(float((a.exp() * (a - b)).sum(dim=-1).mean(dtype=torch.float64)))
            chosen = b.gather(1, row[0, 1:, None])
            loss.append(-float(chosen.mean(dtype=torch.float64)))
    return Judged(kl=kl, loss=loss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("original", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--limit", type=int, default=None, help="at most this many windows")
    args = parser.parse_args()
    found = judge(args.original, args.folder, args.text, length=args.length, limit=args.limit)
    sys.stdout.write(json.dumps({**found.summary(), "each": list(found.kl)}) + "\n")


if __name__ == "__main__":
    main()
