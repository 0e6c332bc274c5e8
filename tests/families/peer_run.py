"""Checkpoints of tiny models by llm-compressor, run by the interpreter of its own environment.

`python peer_run.py JOB.json`: {"model", "cls", "scheme", "tokens", "out"}; `tokens` is a file with
`input_ids` [N, T]. Writes `OUT.error` instead of a checkpoint that failed. It imports nothing of
presswork.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

PLAIN = "plain"
"""Second argument: load as transformers does, and let oneshot take experts apart."""

ROUTERS = ["lm_head", "re:.*mlp[.]gate$", "re:.*router.*", "re:.*shared_expert_gate$"]
"""What its examples leave dense in mixtures of experts."""


def main(path: str) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(1)
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    try:
        make(job)
    except Exception as error:
        told = f"{type(error).__name__}: {error}".split("\n")[0]
        Path(f"{job['out']}.error").write_text(told, encoding="utf-8")


def make(job: dict[str, Any]) -> None:
    """One checkpoint, as its documentation has it for mixtures of experts."""
    import torch
    import transformers
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modeling.moe.linearize import load_quantizable_moe
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from safetensors.torch import load_file

    torch.manual_seed(0)
    cls = getattr(transformers, job["cls"])
    try:
        context = nullcontext() if PLAIN in sys.argv else load_quantizable_moe(cls)
        with context:
            model = cls.from_pretrained(job["model"], dtype="auto")
    except ImportError:
        # transformers' patching looks into every module there is, some of which ask for
        # torchvision; oneshot takes experts apart after loading as well. A process of its own,
        # since the mappings that were registered would load experts wrongly
        subprocess.run([sys.executable, __file__, sys.argv[1], PLAIN], check=True)
        return
    ids = load_file(job["tokens"])["input_ids"].tolist()
    rows = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}
    data: dict[str, Any] = {}
    if job["scheme"] == "fp8_dynamic":
        recipe = QuantizationModifier(targets=["Linear"], scheme="FP8_DYNAMIC", ignore=ROUTERS)
    else:
        weights = QuantizationArgs(num_bits=4, type="int", strategy="group", group_size=32)
        group = QuantizationScheme(targets=["Linear"], weights=weights)
        recipe = GPTQModifier(config_groups={"group_0": group}, ignore=ROUTERS)
        data = {
            "dataset": Dataset.from_dict(rows),
            "max_seq_length": len(ids[0]),
            "num_calibration_samples": len(ids),
            "shuffle_calibration_samples": False,
        }
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["model"])
    oneshot(model=model, processor=tokenizer, recipe=recipe, **data)
    model.save_pretrained(job["out"], save_compressed=True)


if __name__ == "__main__":
    main(sys.argv[1])
