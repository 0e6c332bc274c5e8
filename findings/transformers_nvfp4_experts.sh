#!/usr/bin/env bash
# Software: transformers 5.17.0 with compressed-tensors 0.19.0, and 5.24.0 with 0.20.0 (torch 2.13.0, CPU).
# A good expert would guess: a mixture of experts in compressed-tensors' nvfp4-pack-quantized, experts stored one by
#   one as llm-compressor writes them, either loads rightly or raises, as other formats do.
# What happens: from_pretrained succeeds. Each expert's `weight_global_scale` is merely listed as UNEXPECTED in the load
#   report ("can be ignored ..."), and the expert is decoded without dividing by it: its weights are too large by
#   that factor, thousands. Logits are wrong, yet finite. The same experts in W4A16 come back to the bit.
# Why it matters: an evaluation through transformers measures noise and blames the quantization. Loading without an
#   exception proves nothing: compare the decoded weights, or treat any unexpected key as an error.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip=("$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 numpy==2.4.6
printf 'torch==2.13.0\nnumpy==2.4.6\n' > "$dir/constraints.txt"
pip+=(-c "$dir/constraints.txt")
"${pip[@]}" transformers==5.17.0 compressed-tensors==0.19.0 safetensors==0.8.0 accelerate==1.15.0

cat > "$dir/write.py" <<'PY'
import json
import pathlib
import sys

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus
from compressed_tensors.quantization import apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from safetensors.torch import load_file, save_file
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

folder, scheme = pathlib.Path(sys.argv[1]), sys.argv[2]
torch.manual_seed(0)
sizes = dict(hidden_size=128, intermediate_size=128, moe_intermediate_size=128, head_dim=32)
counts = dict(num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4, vocab_size=64)
config = Qwen3MoeConfig(num_experts=4, num_experts_per_tok=2, **sizes, **counts)
Qwen3MoeForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
tensors = load_file(folder / "model.safetensors")
names = sorted(name for name in tensors if ".experts." in name)
holder = torch.nn.Module()
for i, name in enumerate(names):
    linear = torch.nn.Linear(*reversed(tensors[name].shape), bias=False, dtype=torch.bfloat16)
    linear.weight.data.copy_(tensors.pop(name))
    holder.add_module(f"m{i}", linear)
apply_quantization_config(holder, QuantizationConfig(config_groups={scheme: ["Linear"]}))
for linear in holder.children():
    args, weight, total = linear.quantization_scheme.weights, linear.weight.data, None
    if scheme == "NVFP4A16":
        total = generate_gparam(weight.min(), weight.max())
        linear.weight_global_scale.data.copy_(total)
    blocks = weight.reshape(weight.shape[0], -1, args.group_size)
    scale, _ = calculate_qparams(blocks.amin(-1), blocks.amax(-1), args, global_scale=total)
    linear.weight_scale.data.copy_(scale.to(linear.weight_scale.dtype))
    linear.quantization_status = QuantizationStatus.FROZEN
compressor = ModelCompressor.from_pretrained_model(holder)
compressor.compress_model(holder)
for key, value in holder.state_dict().items():
    module, leaf = key.split(".", 1)
    tensors[names[int(module[1:])].removesuffix("weight") + leaf] = value.contiguous()
save_file(tensors, folder / "model.safetensors", {"format": "pt"})
quantization = compressor.quantization_config.model_dump(mode="json")
quantization["ignore"] = ["lm_head", "re:.*self_attn.*", "model.layers.0.mlp.gate"]
text = json.loads((folder / "config.json").read_text())
(folder / "config.json").write_text(json.dumps({**text, "quantization_config": quantization}))
compressor.decompress_model(holder)
torch.save({n: getattr(holder, f"m{i}").weight.data for i, n in enumerate(names)}, folder / "said.pt")
PY

cat > "$dir/read.py" <<'PY'
import importlib.metadata
import sys

import torch
from transformers import AutoModelForCausalLM

folder, scheme = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
stem = "model.layers.0.mlp.experts."
said = torch.load(folder + "/said.pt")[stem + "0.down_proj.weight"].float()
loaded = model.get_parameter(stem + "down_proj")[0].detach().float()
ratio = (loaded[said != 0] / said[said != 0]).median().item()
finite = torch.isfinite(model(torch.arange(16)[None]).logits).all().item()
version = importlib.metadata.version("transformers")
verdict = "over 1000" if ratio > 1000 else f"{ratio:.3g}"
print(f"transformers {version} {scheme}: loaded / stored = {verdict}, logits finite: {finite}")
PY

python() { "$dir/venv/bin/python" "$@" 2> "$dir/log" || { tail -20 "$dir/log" >&2; exit 1; }; }
for scheme in W4A16 NVFP4A16; do python "$dir/write.py" "$dir/$scheme" $scheme; done
seen="$(for scheme in W4A16 NVFP4A16; do python "$dir/read.py" "$dir/$scheme" $scheme; done)"
grep -q 'weight_global_scale.*UNEXPECTED' "$dir/log" || { echo "CHANGED: no load report" >&2; exit 1; }
"${pip[@]}" transformers==5.24.0 compressed-tensors==0.20.0
seen+=$'\n'"$(for scheme in W4A16 NVFP4A16; do python "$dir/read.py" "$dir/$scheme" $scheme; done)"
expected='transformers 5.17.0 W4A16: loaded / stored = 1, logits finite: True
transformers 5.17.0 NVFP4A16: loaded / stored = over 1000, logits finite: True
transformers 5.24.0 W4A16: loaded / stored = 1, logits finite: True
transformers 5.24.0 NVFP4A16: loaded / stored = over 1000, logits finite: True'
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
