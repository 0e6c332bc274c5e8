"""Checkpoints by llm-compressor, made by the interpreter of its own environment.

`python peer.py JOBS.json`: a list of {"model", "out", "preset" | "groups", "format", "tokens"}.
`tokens` is a safetensors file with `input_ids` [N, T] or null; batches are of `batch_size`. It
imports nothing of presswork.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main(jobs: str) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(1)
    for job in json.loads(Path(jobs).read_text(encoding="utf-8")):
        if not Path(job["out"], "config.json").is_file():
            make(job)


def make(job: dict[str, Any]) -> None:
    """One checkpoint, round to nearest."""
    from compressed_tensors.quantization import QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ignore = ["lm_head", "re:.*mlp[.]gate$"] if job["routers"] else ["lm_head"]
    if job["preset"]:
        recipe = QuantizationModifier(scheme=job["preset"], targets=["Linear"], ignore=ignore)
    else:
        groups = {n: QuantizationScheme.model_validate(g) for n, g in job["groups"].items()}
        recipe = QuantizationModifier(config_groups=groups, ignore=ignore)
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    data: dict[str, Any] = {}
    if job["tokens"]:
        ids = load_file(job["tokens"])["input_ids"].tolist()
        rows = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}
        data = {
            "dataset": Dataset.from_dict(rows),
            "max_seq_length": len(ids[0]),
            "num_calibration_samples": len(ids),
            "shuffle_calibration_samples": False,
            "batch_size": job["batch_size"],
        }
    oneshot(model=model, processor=tokenizer, recipe=recipe, **data)
    model.save_pretrained(job["out"], save_compressed=True, quantization_format=job["format"])


if __name__ == "__main__":
    main(sys.argv[1])
