#!/usr/bin/env bash
# Software: llmcompressor 0.14.0.1 (compressed-tensors 0.19.0, transformers 5.17.0, torch 2.13.0, CPU).
# A good expert would guess: SpinQuant's offline rotations are fused into the weights and change nothing before
#   something is quantized; embeddings are centred only where the norms subtract the mean (LayerNorm).
# What happens: SpinQuantModifier subtracts each embedding row's mean whatever the norms are, also without R1. In a
#   llama, whose RMSNorms do not subtract it, the logits of the unquantized model move by a tenth and more. They are
#   those of the original with centred embeddings; where the rows had no mean, they stay as they were.
# Why it matters: a worse perplexity is then blamed on the quantization. How much is lost depends on the means of the
#   embeddings' rows, so look at the model after the rotations and before anything is quantized.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip=("$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 numpy==2.4.6
printf 'torch==2.13.0\nnumpy==2.4.6\n' > "$dir/constraints.txt"
pip+=(-c "$dir/constraints.txt")
"${pip[@]}" llmcompressor==0.14.0.1 compressed-tensors==0.19.0 transformers==5.17.0

cat > "$dir/rotate.py" <<'PY'
import pathlib
import sys

import torch
from llmcompressor import oneshot
from llmcompressor.modifiers.transform import SpinQuantModifier
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

root = pathlib.Path(sys.argv[1])
words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="a", pad_token="a")
sizes = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, vocab_size=256)
ids = torch.arange(64)[None]


def folder(name, centred):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(num_attention_heads=4, initializer_range=0.2, **sizes))
    if centred:
        rows = model.model.embed_tokens.weight.data
        rows -= rows.mean(dim=1, keepdim=True)
    model.save_pretrained(root / name)
    tokenizer.save_pretrained(root / name)
    return root / name


def load(path):
    return LlamaForCausalLM.from_pretrained(path, dtype=torch.float64).eval()


def moved(a, b):
    return float((a - b).norm() / a.norm())


with torch.no_grad():
    found = {}
    plain, centred = folder("plain", False), folder("centred", True)
    wanted, other = load(plain)(ids).logits, load(centred)(ids).logits
    for rotations in (["R1"], ["R2"]):
        model = load(plain)
        recipe = SpinQuantModifier(rotations=rotations, transform_type="hadamard")
        oneshot(model=model, processor=tokenizer, recipe=recipe)
        logits = model(ids).logits
        found[rotations[0]] = moved(wanted, logits), moved(other, logits)
    model = load(centred)
    recipe = SpinQuantModifier(rotations=["R2"], transform_type="hadamard")
    oneshot(model=model, processor=tokenizer, recipe=recipe)
    found["R2, rows without a mean"] = moved(other, model(ids).logits), 0.0
for name, (original, of_centred) in found.items():
    print(f"{name}: logits moved by {original:.1e}, from the centred model's by {of_centred:.1e}")
for name in ("R1", "R2"):
    assert found[name][0] > 0.05 and found[name][1] < 1e-3, found
assert found["R2, rows without a mean"][0] < 1e-3, found
PY
export HF_HUB_OFFLINE=1
cd "$dir"
"$dir/venv/bin/python" "$dir/rotate.py" "$dir" > "$dir/log" 2>&1 || { tail -n 20 "$dir/log"; exit 1; }
grep "logits moved" "$dir/log"
echo "as stated: embeddings are centred in a model with RMSNorm"
