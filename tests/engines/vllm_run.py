"""Perplexity and a greedy generation of a checkpoint in vLLM, by vLLM's own interpreter.

`python vllm_run.py CHECKPOINT TOKENS PROMPT`: TOKENS is a JSON file with equally long lists of
token ids. The last line printed is JSON: {"perplexity", "text", "emulated"}. It imports nothing of
presswork.

vLLM's product with 4-bit weights needs AVX-512. Where the processor lacks it, the product alone is
done in torch, from the weights as vLLM has loaded and repacked them; "emulated" says so.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

KEPT: list[Any] = []
"""What must not be freed while the process runs."""

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


def product_with_4_bits(  # the arguments are those of vLLM's operator
    x: Any,
    q: Any,
    out: Any,
    scales: Any,
    zeros: Any,
    bias: Any,
    pack_factor: int,
    isa_hint: str,
) -> None:
    """out [n, out] = x [n, in] times weights in blocks of 16 outputs, 8 codes in an int32."""
    import torch

    del isa_hint
    shifts = 4 * torch.arange(pack_factor, dtype=torch.int32)
    columns, rows = x.shape[1], scales.shape[1]
    codes = (q.view(rows // 16, columns, 16 // pack_factor, 1) >> shifts) & 15
    codes = codes.permute(1, 0, 2, 3).reshape(columns, rows).float()
    groups = scales.shape[0]
    offset = torch.full((groups, rows), 8.0)
    if zeros is not None:
        offset = ((zeros.view(groups, -1, 1) >> shifts) & 15).reshape(groups, rows).float()
    size = columns // groups
    weight = (codes.view(groups, size, rows) - offset[:, None]) * scales.float()[:, None]
    found = x.float() @ weight.reshape(columns, rows).to(x.dtype).float()
    out.copy_(found if bias is None else found + bias.float())


def emulate() -> bool:
    """Give vLLM the operator that its build for this processor lacks; whether it lacks it."""
    import torch

    if hasattr(torch.ops._C, "cpu_gemm_wna16"):
        return False
    library = torch.library.Library("_C", "FRAGMENT")
    library.define(
        "cpu_gemm_wna16(Tensor x, Tensor q, Tensor(a!) out, Tensor scales, Tensor? zeros, "
        "Tensor? bias, int pack_factor, str isa_hint) -> ()"
    )
    library.impl("cpu_gemm_wna16", product_with_4_bits, "CPU")
    KEPT.append(library)
    return True


def main(checkpoint: str, tokens: str, prompt: str) -> None:
    os.environ.update(ENVIRONMENT)
    from vllm import LLM, SamplingParams

    emulated = emulate()
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
    found = {
        "perplexity": math.exp(sum(losses) / len(losses)),
        "text": text,
        "emulated": emulated,
    }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
