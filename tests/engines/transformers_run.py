"""Perplexity of a checkpoint in transformers: `transformers_run.py CHECKPOINT TOKENS [dequantize]`.

With `dequantize` transformers turns all weights into dense ones while it loads. The last line
printed is JSON: {"perplexity"}. It imports nothing of presswork.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path


def main(checkpoint: str, tokens: str, how: str = "") -> None:
    import torch
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    rows = json.loads(Path(tokens).read_text(encoding="utf-8"))
    dense = how == "dequantize"
    options = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if dense else {}
    model, loading = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.bfloat16, output_loading_info=True, **options
    )
    if wrong := loading["missing_keys"] | loading["unexpected_keys"]:
        raise SystemExit(f"keys that do not fit: {sorted(wrong)[:4]}")
    losses = []
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row])
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            losses.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none"))
    found = {"perplexity": math.exp(torch.cat(losses).double().mean().item())}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
