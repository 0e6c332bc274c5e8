"""One pruning by llm-compressor, run by the interpreter of its own environment.

`python peer_pruned.py MODEL TOKENS OUT --pruner sparsegpt [--mask 2:4]`: MODEL is a transformers
folder, TOKENS a safetensors file with `input_ids` [N, T], OUT will hold a dense checkpoint with the
zeros in it. It imports nothing of presswork.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("tokens")
    parser.add_argument("out")
    parser.add_argument("--pruner", choices=["sparsegpt", "wanda"], default="sparsegpt")
    parser.add_argument("--mask", default="2:4")
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--owl", action="store_true", help="layer-wise sparsity, without a mask")
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.path.insert(0, str(Path(__file__).parent))

    import torch
    from llmcompressor import oneshot
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
    from peer_run import calibration
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    args.batch_size, args.original = 1, False
    kind = SparseGPTModifier if args.pruner == "sparsegpt" else WandaPruningModifier
    options = {"sparsity": args.sparsity, "mask_structure": args.mask, "ignore": ["re:.*lm_head"]}
    if args.owl:
        options |= {"mask_structure": "0:0", "sparsity_profile": "owl"}
        options |= {"owl_m": 5, "owl_lmbda": 0.08}
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    oneshot(model=model, processor=tokenizer, recipe=kind(**options), **calibration(args))
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
