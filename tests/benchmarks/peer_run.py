"""One compression by llm-compressor, run by the interpreter of its own environment.

`python peer_run.py MODEL TOKENS OUT [--recipe NAME] [--batch-size N]`: MODEL is a transformers
folder, TOKENS a safetensors file with `input_ids` [N, T]. It imports nothing of presswork. The
driver times it from the start of the process to the saved checkpoint. The last line of its output
is JSON with the peak memory of tensors on a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

RECIPES = {"default": None, "mse": "memoryless_mse", "imatrix": "imatrix_mse"}
"""Recipe name -> observer of the weights; None is the modifier's default."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("tokens")
    parser.add_argument("out")
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="default")
    parser.add_argument("--solver", choices=["gptq", "rtn"], default="gptq")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--preset", help="a scheme by its name, in place of integers in groups")
    parser.add_argument("--data-free", action="store_true", help="calibrate nothing")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--original", action="store_true", help="do not propagate errors")
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    import torch
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    data: dict[str, Any] = {} if args.data_free else calibration(args)
    observer = RECIPES[args.recipe]
    weights = QuantizationArgs(
        num_bits=args.bits,
        type="int",
        symmetric=True,
        strategy="group",
        group_size=args.group_size,
        **({"observer": observer} if observer else {}),
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    kind = GPTQModifier if args.solver == "gptq" else QuantizationModifier
    chosen = {"config_groups": {"group_0": scheme}}
    if args.preset:
        chosen = {"targets": ["Linear"], "scheme": args.preset}
    recipe = kind(ignore=["lm_head"], **chosen)

    model = AutoModelForCausalLM.from_pretrained(args.model, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    oneshot(model=model, processor=tokenizer, recipe=recipe, **data)
    model.save_pretrained(args.out, save_compressed=True)
    tokenizer.save_pretrained(args.out)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    sys.stdout.write(json.dumps({"peak_device_bytes": peak}) + "\n")


def calibration(args: argparse.Namespace) -> dict[str, Any]:
    """What oneshot is told about the tokens."""
    from datasets import Dataset
    from safetensors.torch import load_file

    ids = load_file(args.tokens)["input_ids"].tolist()
    rows = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}
    return {
        "dataset": Dataset.from_dict(rows),
        "max_seq_length": len(ids[0]),
        "num_calibration_samples": len(ids),
        "shuffle_calibration_samples": False,
        "batch_size": args.batch_size,
        "propagate_error": not args.original,
    }


if __name__ == "__main__":
    main()
