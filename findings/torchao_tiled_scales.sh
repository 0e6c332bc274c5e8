#!/usr/bin/env bash
# Software: torchao 0.18.0, transformers 5.17.0, safetensors 0.8.0 (torch 2.13.0, CPU).
# A good expert would guess: a safetensors checkpoint has one scale for each block, [out, in / block], as
#   compressed-tensors, ModelOpt and auto-round write them; what a kernel wants is made of it on loading.
# What happens: the scales of MX and NVFP4 weights are stored in the tiles of NVIDIA's matrix units, padded to 128 rows
#   and 4 groups, also where the writer is a CPU. A weight [64, 96] in MXFP8 has scales [32, 16], not [64, 3]; the order
#   of the bytes is another one, and most are padding. Only JSON in the header's metadata says so.
# Why it matters: where rows and groups fill the tiles the number of bytes is the same either way (128 by 4), so that a
#   reader who reshapes gets wrong weights and no error.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip=("$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 numpy==2.4.6
printf 'torch==2.13.0\nnumpy==2.4.6\n' > "$dir/constraints.txt"
"${pip[@]}" -c "$dir/constraints.txt" transformers==5.17.0 safetensors==0.8.0 accelerate
"${pip[@]}" --no-deps torchao==0.18.0

cat > "$dir/check.py" <<'PY'
import sys
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from torchao.prototype.mx_formats import MXDynamicActivationMXWeightConfig
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, TorchAoConfig

sizes = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 64, "num_hidden_layers": 1}
heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
eight = torch.float8_e4m3fn
config = TorchAoConfig(MXDynamicActivationMXWeightConfig(weight_dtype=eight, activation_dtype=eight))
with tempfile.TemporaryDirectory() as folder:
    source, target = Path(folder, "source"), Path(folder, "target")
    LlamaForCausalLM(LlamaConfig(**sizes, **heads)).to(torch.bfloat16).save_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.bfloat16, quantization_config=config
    )
    model.save_pretrained(target)
    with safe_open(target / "model.safetensors", "pt") as file:
        name = "model.layers.0.mlp.down_proj"
        codes = file.get_slice(f"{name}._weight_qdata").get_shape()
        scales = file.get_slice(f"{name}._weight_scale").get_shape()
        told = '"is_swizzled_scales": true' in file.metadata()[f"{name}.weight"]
print(f"weight {codes}, scales {scales}, the header's metadata says swizzled: {told}")
sys.exit(0 if (codes, scales, told) == ([64, 96], [32, 16], True) else 1)
PY
"$dir/venv/bin/python" "$dir/check.py"
