"""KL and perplexity of MX weights under each rule for block scales, rounded to nearest.

`python -m tests.benchmarks.mx_scale_rules MODEL --text wiki.valid.raw` rounds the Linears of the
decoder layers as `mxfp4a16` and `mxfp8a16` do under each `scale_rule`, evaluates the second half of
the text and prints a line of JSON for each: KL to the original and perplexity with their standard
errors, and the error of the weights. A model in float32 on a CPU, with no code of presswork beside
the observer and the rounding.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.divergence import Judged, load
from tests.benchmarks.tokens import halves, windows

RULES = ("floor", "even", "rceil", "compressed_tensors", "search")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--windows", type=int, default=10)
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 8])
    given = parser.parse_args()
    for line in measured(given.model, given.text, given.bits, given.length, given.windows):
        sys.stdout.write(f"{json.dumps(line)}\n")
        sys.stdout.flush()


def measured(
    folder: Path, text: Path, bits: list[int], length: int, limit: int
) -> Iterator[dict[str, Any]]:
    """A line for each format and rule."""
    import torch
    from transformers import AutoTokenizer

    model = load(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batches = list(windows(tokenizer, halves(text)[1], length, limit))
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name
    }
    originals = {name: module.weight.detach().clone() for name, module in linears.items()}
    with torch.inference_mode():
        truth = [logprobs(model, ids) for ids in batches]
    for width in bits:
        for rule in RULES:
            error = energy = 0.0
            for name, module in linears.items():
                rounded = quantized(originals[name], width, rule)
                error += float((rounded - originals[name]).square().sum())
                energy += float(originals[name].square().sum())
                module.weight.data.copy_(rounded)
            found = judged(model, batches, truth)
            yield {
                "bits": width,
                "rule": rule,
                "relative_error": error / energy,
                **found.summary(),
            }


def quantized(weight: Any, bits: int, rule: str) -> Any:
    """A weight rounded to nearest in the MX format of `bits`, decoded."""
    import torch

    from stages.compress.grid import grid_of
    from stages.compress.observers import minmax
    from stages.compress.solvers.rtn import rtn
    from stages.schemes.quant_args import QArgs

    args = QArgs(
        num_bits=bits,
        type="float",
        strategy="group",
        group_size=32,
        scale_dtype="uint8",
        scale_rule=rule,
    )
    grid = grid_of(args, torch.bfloat16)
    return rtn(weight, grid, minmax.observe(weight.bfloat16(), grid)).weight


def judged(model: Any, batches: list[Any], truth: list[Any]) -> Judged:
    """KL to the original and loss of each window."""
    import torch

    kl, loss = [], []
    with torch.inference_mode():
        for ids, p in zip(batches, truth, strict=True):
            own = logprobs(model, ids)
            kl.append(float((p.exp() * (p - own)).sum(-1).mean()))
            loss.append(float(-own[:-1].gather(1, ids[1:, None]).mean()))
    return Judged(kl=kl, loss=loss)


def logprobs(model: Any, ids: Any) -> Any:
    """float32 [tokens, vocabulary]."""
    return model(ids[None]).logits[0].float().log_softmax(-1)


if __name__ == "__main__":
    main()
