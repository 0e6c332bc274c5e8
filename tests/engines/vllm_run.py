"""Perplexity and a greedy generation of a checkpoint in vLLM, by vLLM's own interpreter.

`python vllm_run.py CHECKPOINT TOKENS PROMPT`: TOKENS is a JSON file with equally long lists of
token ids. The last line printed is JSON: {"perplexity", "text"}. It imports nothing of presswork.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


def main(checkpoint: str, tokens: str, prompt: str) -> None:
    os.environ.update(ENVIRONMENT)
    from vllm import LLM, SamplingParams

    rows = json.loads(Path(tokens).read_text(encoding="utf-8"))
    engine = LLM(
        model=checkpoint,
        dtype="bfloat16",
        enforce_eager=True,
        max_model_len=1024,
        enable_prefix_caching=False,
    )
    judged = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
    outputs = engine.generate([{"prompt_token_ids": row} for row in rows], judged)
    losses = [
        -chances[token].logprob
        for row, output in zip(rows, outputs, strict=True)
        for token, chances in zip(row[1:], output.prompt_logprobs[1:], strict=True)
    ]
    greedy = SamplingParams(max_tokens=16, temperature=0.0)
    text = engine.generate([prompt], greedy)[0].outputs[0].text
    found = {"perplexity": math.exp(sum(losses) / len(losses)), "text": text}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
