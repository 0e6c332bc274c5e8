#!/usr/bin/env bash
# Software: transformers 5.17.0 and 5.24.0 (compressed-tensors 0.19.0 and 0.20.0, torch 2.13.0, CPU).
# A good expert would guess: weights that a checkpoint leaves dense, and that quantization_config does not touch, load as
#   they do from the dense checkpoint, however the rest is compressed; a newer transformers goes on loading it.
# What happens: OLMo hybrid keeps three convolutions on disk that it merges into one while loading. 5.17.0 merges them
#   beside compressed Linears. 5.24.0 hands the merge to the quantizer, whose dequantization comes first: one compressed
#   Linear anywhere in the model, packed or INT8, and the dense convolutions are lost on the way, so that loading raises.
# Why it matters: a checkpoint that loaded stops loading though nothing in it changed (Kimi Linear and LongCat's idle
#   experts are met by the same). Whoever writes checkpoints of such models has to say which release reads them.
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
import json
import sys
from pathlib import Path

import torch
import transformers
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, OlmoHybridConfig

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
folder = Path(sys.argv[1])
torch.manual_seed(0)
model = AutoModelForCausalLM.from_config(
    OlmoHybridConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, pad_token_id=0, eos_token_id=1,
        layer_types=["linear_attention", "full_attention"], linear_num_key_heads=4,
        linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16,
    ),
    dtype=torch.bfloat16,
)
model.save_pretrained(folder)
tensors = load_file(folder / "model.safetensors")
convolutions = sorted(name for name in tensors if "conv1d" in name)
config = json.loads((folder / "config.json").read_text())
weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
formats = {"pack-quantized": weights, "int-quantized": weights | {"num_bits": 8, "strategy": "channel", "group_size": None}}


def written(kind):
    """The same model with one compressed Linear, the down_proj of layer 0; all else stays dense."""
    target, name = folder / kind, "model.layers.0.mlp.down_proj"
    target.mkdir(exist_ok=True)
    new = dict(tensors)
    dense = new.pop(f"{name}.weight").float()
    args = formats[kind]
    size, top = args["group_size"] or dense.shape[1], 2 ** (args["num_bits"] - 1) - 1
    groups = dense.unflatten(1, (-1, size))
    scale = (groups.abs().amax(-1) / top).to(torch.bfloat16)
    codes = (groups / scale.float()[..., None]).round().flatten(1).to(torch.int8)
    new[f"{name}.weight_scale"] = scale
    if kind == "pack-quantized":
        new[f"{name}.weight_packed"] = pack_to_int32(codes, 4)
        new[f"{name}.weight_shape"] = torch.tensor(dense.shape)
    else:
        new[f"{name}.weight"] = codes
    save_file({k: v.contiguous() for k, v in new.items()}, target / "model.safetensors", {"format": "pt"})
    group = {"targets": [f"re:{name}"], "weights": args}
    quantization = {"quant_method": "compressed-tensors", "format": kind, "quantization_status": "compressed",
                    "config_groups": {"group_0": group}, "ignore": []}
    (target / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    return target


version = importlib.metadata.version("transformers")
for kind in ("dense", *formats):
    path = folder if kind == "dense" else written(kind)
    try:
        loaded = AutoModelForCausalLM.from_pretrained(path)
        same = all(
            torch.equal(value, loaded.state_dict()[name])
            for name, value in model.state_dict().items() if "conv1d" in name
        )
        seen = "loads, its convolutions " + ("as saved" if same else "DIFFERENT")
    except Exception as error:
        seen = f"{type(error).__name__}"
    print(f"transformers {version} {kind}: {seen} ({len(convolutions)} dense convolutions on disk)")
PY
run() { "$dir/venv/bin/python" "$dir/run.py" "$dir/$1" 2> "$dir/$1.log" || { cat "$dir/$1.log" >&2; exit 1; }; }
seen="$(run old)"
"${pip[@]}" transformers==5.24.0 compressed-tensors==0.20.0
seen+=$'\n'"$(run new)"
expected='transformers 5.17.0 dense: loads, its convolutions as saved (3 dense convolutions on disk)
transformers 5.17.0 pack-quantized: loads, its convolutions as saved (3 dense convolutions on disk)
transformers 5.17.0 int-quantized: loads, its convolutions as saved (3 dense convolutions on disk)
transformers 5.24.0 dense: loads, its convolutions as saved (3 dense convolutions on disk)
transformers 5.24.0 pack-quantized: RuntimeError (3 dense convolutions on disk)
transformers 5.24.0 int-quantized: RuntimeError (3 dense convolutions on disk)'
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
