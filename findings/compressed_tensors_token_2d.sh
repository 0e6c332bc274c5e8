#!/usr/bin/env bash
# Software: compressed-tensors 0.19.0 and 0.20.0 (torch 2.13.0, CPU).
# A good expert would guess: dynamic inputs with strategy "token" (W8A8, W4A8, FP8_DYNAMIC: what most checkpoints for vLLM
#   have) get a scale for every row of a Linear's input, whether that is [batch, tokens, width] or [tokens, width].
# What happens: only three dimensions get one scale a token. An input of two dimensions gets a single scale, that of its
#   largest value, without a word: with INT8 rows a hundred times smaller are noise or zeros (an FP8 code's own
#   exponent hides it). Two dimensions, [routed tokens, width], are what a routed expert's Linears are called with.
# Why it matters: whoever takes fake quantization from this library as the reference for an engine's kernels, or
#   measures a model whose modules are called with two dimensions, gets the numbers of one scale a tensor. Add a
#   dimension first.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip=("$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 numpy==2.4.6
printf 'torch==2.13.0\nnumpy==2.4.6\n' > "$dir/constraints.txt"
pip+=(-c "$dir/constraints.txt")
"${pip[@]}" transformers==5.17.0 compressed-tensors==0.19.0

cat > "$dir/run.py" <<'PY'
import importlib.metadata

import torch
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams

version = importlib.metadata.version("compressed-tensors")
for preset in ("W8A8",):
    torch.manual_seed(0)
    holder = torch.nn.Sequential(torch.nn.Linear(64, 64, bias=False))
    (linear,) = holder
    exact = linear.weight.detach().clone()
    apply_quantization_config(holder, QuantizationConfig(config_groups={preset: ["Linear"]}))
    low, high = exact.amin(1, keepdim=True), exact.amax(1, keepdim=True)
    scale, _ = calculate_qparams(low, high, linear.quantization_scheme.weights)
    linear.weight_scale.data.copy_(scale)
    x = torch.randn(4, 64) * torch.tensor([1.0, 10.0, 100.0, 0.01])[:, None]
    for shape in ((1, 4, 64), (4, 64)):
        with torch.no_grad():
            out, wanted = holder(x.reshape(shape)).reshape(4, 64), x @ exact.T
        errors = (out - wanted).norm(dim=1) / wanted.norm(dim=1)
        words = " ".join("lost" if e > 0.9 else "fine" if e < 0.2 else "bad" for e in errors)
        print(f"compressed-tensors {version} {preset} input {list(shape)}: rows {words}")
PY
seen="$("$dir/venv/bin/python" "$dir/run.py")"
"${pip[@]}" compressed-tensors==0.20.0
seen+=$'\n'"$("$dir/venv/bin/python" "$dir/run.py")"
expected='compressed-tensors 0.19.0 W8A8 input [1, 4, 64]: rows fine fine fine fine
compressed-tensors 0.19.0 W8A8 input [4, 64]: rows bad fine fine lost
compressed-tensors 0.20.0 W8A8 input [1, 4, 64]: rows fine fine fine fine
compressed-tensors 0.20.0 W8A8 input [4, 64]: rows bad fine fine lost'
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
