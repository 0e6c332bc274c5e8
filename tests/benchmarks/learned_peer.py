"""One compression by auto-round, run by the interpreter of its own environment.

`python learned_peer.py MODEL TOKENS OUT`: MODEL is a transformers folder, TOKENS a safetensors file
with `input_ids` [N, T]. The checkpoint in OUT/model is dense, with the values that the quantized
weights have. It imports nothing of presswork. `--layers` keeps only the first decoder layers: what
one of them takes tells what the others do, where they are alike.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("tokens")
    parser.add_argument("out", type=Path)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--layers", type=int, help="keep only so many decoder layers")
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    from auto_round import AutoRound
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(args.model, dtype="auto")
    if args.layers:
        model.model.layers = model.model.layers[: args.layers]
        model.config.num_hidden_layers = args.layers
    ids = load_file(args.tokens)["input_ids"]
    rounding = AutoRound(
        model,
        AutoTokenizer.from_pretrained(args.model),
        scheme=f"W{args.bits}A16",
        group_size=args.group_size,
        sym=True,
        iters=args.iterations,
        dataset=list(ids.split(args.batch_size)),
        nsamples=len(ids),
        seqlen=ids.shape[1],
        batch_size=args.batch_size,
        device_map="cpu",
        enable_torch_compile=False,
    )
    rounding.quantize_and_save(str(args.out / "saved"), format="fake")
    (saved,) = (path.parent for path in args.out.rglob("config.json"))
    saved.rename(args.out / "model")  # it names the folder after the model and the scheme


if __name__ == "__main__":
    main()
