"""Perplexity of a checkpoint by transformers alone: the common judge of all compressors.

`python -m tests.benchmarks.perplexity FOLDER --text wiki.valid.raw` evaluates the second half of
the text in windows without overlap and prints one line of JSON. It imports nothing of presswork,
so that a mistake in presswork's own evaluation cannot flatter presswork's checkpoints.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

from tests.benchmarks.tokens import halves, windows


def perplexity(
    folder: Path, text: Path, *, length: int = 512, limit: int | None = None, batch: int = 1
) -> dict[str, float]:
    """exp of the mean negative log-likelihood of all but the first token of every window."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(folder)
    options = {}
    if getattr(config, "quantization_config", None):
        from transformers import CompressedTensorsConfig

        options["quantization_config"] = CompressedTensorsConfig(run_compressed=False)
    # half precision would only add noise, and is slow on many CPUs
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", **options).eval().float()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = windows(tokenizer, halves(text)[1], length, limit)
    total, count = 0.0, 0
    with torch.inference_mode():
        for part in rows.split(batch):
            logits = model(input_ids=part, use_cache=False).logits[:, :-1]
            losses = torch.nn.functional.cross_entropy(
                logits.float().flatten(0, 1), part[:, 1:].flatten(), reduction="none"
            )
            total += losses.double().sum().item()
            count += losses.numel()
    return {"perplexity": math.exp(total / count), "tokens": count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--limit", type=int, default=None, help="at most this many windows")
    args = parser.parse_args()
    found = perplexity(args.folder, args.text, length=args.length, limit=args.limit)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
