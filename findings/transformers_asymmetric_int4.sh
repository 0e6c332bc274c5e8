#!/usr/bin/env bash
# Software: transformers 5.22.2 and 5.24.0 (torch 2.13.0, compressed-tensors 0.19.0 and 0.20.0, CPU).
# A good expert would guess: a W4A16_ASYM checkpoint (pack-quantized, the layout llm-compressor has written for years)
#   that one release of transformers 5 loads is loaded by the next, as W4A16 without zero points is.
# What happens: 5.22.2 loads both. 5.24.0 expects `weight_zero_point` one row for each output channel, finds it packed
#   eight rows to an int32, reports MISMATCH for every module and raises; newer compressed-tensors does not help.
#   The checkpoint is as compressed-tensors itself wrote it.
# Why it matters: whoever publishes an asymmetric int4 checkpoint has readers who cannot open it, depending on a minor
#   release; a range such as transformers>=5.17 promises too much, and W4A16 is the safe choice where both are as good.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip=("$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 numpy==2.4.6
printf 'torch==2.13.0\nnumpy==2.4.6\n' > "$dir/constraints.txt"
pip+=(-c "$dir/constraints.txt")
"${pip[@]}" transformers==5.22.2 compressed-tensors==0.19.0 safetensors==0.8.0 accelerate==1.15.0

cat > "$dir/write.py" <<'PY'
import sys

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (
    QuantizationConfig,
    QuantizationStatus,
    apply_quantization_config,
)
from compressed_tensors.quantization.utils import calculate_qparams
from transformers import LlamaConfig, LlamaForCausalLM

folder, scheme = sys.argv[1:]
torch.manual_seed(0)
sizes = dict(hidden_size=256, intermediate_size=256, num_hidden_layers=1, vocab_size=64)
model = LlamaForCausalLM(LlamaConfig(num_attention_heads=4, **sizes)).to(torch.bfloat16)
quantization = QuantizationConfig(config_groups={scheme: ["Linear"]}, ignore=["lm_head"])
apply_quantization_config(model, quantization)
for module in model.modules():
    if getattr(module, "quantization_scheme", None) is None:
        continue
    args, weight = module.quantization_scheme.weights, module.weight.data
    groups = weight.reshape(weight.shape[0], -1, args.group_size)
    scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), args)
    module.weight_scale.data.copy_(scale)
    if not args.symmetric:
        module.weight_zero_point.data.copy_(zero)
    module.quantization_status = QuantizationStatus.FROZEN
compressor = ModelCompressor.from_pretrained_model(model)
compressor.compress_model(model)
model.save_pretrained(folder)
compressor.update_config(folder)
PY

cat > "$dir/read.py" <<'PY'
import importlib.metadata as metadata
import sys

import torch
from transformers import AutoModelForCausalLM

folder, scheme = sys.argv[1:]
try:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model(torch.arange(16)[None])
    verdict = "loads"
except RuntimeError as error:
    verdict = "raises RuntimeError" if "mismatched" in str(error) else str(error)
names = ("transformers", "compressed-tensors")
print(*(f"{name} {metadata.version(name)}" for name in names), f"{scheme}: {verdict}")
PY

python() { "$dir/venv/bin/python" "$@" 2> "$dir/log" || { tail -20 "$dir/log" >&2; exit 1; }; }
read_both() { for s in W4A16 W4A16_ASYM; do python "$dir/read.py" "$dir/$s" $s; done; }
for scheme in W4A16 W4A16_ASYM; do python "$dir/write.py" "$dir/$scheme" $scheme; done
seen="$(read_both)"
"${pip[@]}" transformers==5.24.0
seen+=$'\n'"$(read_both)"
"${pip[@]}" compressed-tensors==0.20.0
seen+=$'\n'"$(read_both)"
expected='transformers 5.22.2 compressed-tensors 0.19.0 W4A16: loads
transformers 5.22.2 compressed-tensors 0.19.0 W4A16_ASYM: loads
transformers 5.24.0 compressed-tensors 0.19.0 W4A16: loads
transformers 5.24.0 compressed-tensors 0.19.0 W4A16_ASYM: raises RuntimeError
transformers 5.24.0 compressed-tensors 0.20.0 W4A16: loads
transformers 5.24.0 compressed-tensors 0.20.0 W4A16_ASYM: raises RuntimeError'
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
