#!/usr/bin/env bash
# Software: torchao 0.18.0, nvidia-modelopt 0.47.0, compressed-tensors 0.19.0 (torch 2.13.0, numpy 2.4.6, CPU).
# A good expert would guess: a weight of zeros in NVFP4 decodes to zeros with every writer, whatever scale stands there;
#   and a block of zeros in another weight is stored with scale 0, or with the smallest scale, by all of them.
# What happens: torchao and ModelOpt divide by the tensor's scale, amax / 2688 = 0, so each block scale of a weight of
#   zeros is the byte 0xff (NaN), the weight decodes to NaN everywhere, and nobody says so. compressed-tensors stores
#   scale 0.125 and decodes zeros. A zero block elsewhere has scale 0.125, 2^-6 or 1, by writer.
# Why it matters: weights of zeros are real (pruned experts, layers added with a zero output projection, LoRA's B): one
#   of them turns a whole model's output to NaN. Two sound checkpoints of the same model differ in scale bytes, so
#   compare decoded weights, and skip the scale of a block whose codes are all zero.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip=("$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 numpy==2.4.6
printf 'torch==2.13.0\nnumpy==2.4.6\n' > "$dir/constraints.txt"
pip+=(-c "$dir/constraints.txt")
"${pip[@]}" transformers==5.17.0 compressed-tensors==0.19.0
"${pip[@]}" omegaconf==2.4.0 scipy==1.17.1 pulp==3.3.2 rich==15.0.0 requests==2.34.2
"${pip[@]}" --no-deps torchao==0.18.0 nvidia-modelopt==0.47.0 nvidia-ml-py==13.615.71 ninja==1.13.2

cat > "$dir/check.py" <<'PY'
import torch
from compressed_tensors.quantization import preset_name_to_scheme
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from modelopt.torch.quantization.qtensor import NVFP4QTensor
from torchao.prototype.mx_formats import NVFP4WeightOnlyConfig
from torchao.quantization import quantize_


def torchao(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    linear.weight.data.copy_(weight)
    model = torch.nn.Sequential(linear)
    quantize_(model, NVFP4WeightOnlyConfig())
    stored = model[0].weight
    real = stored.scale.float() != 0  # its swizzled layout is padded with zeros
    return stored.scale[real], stored.dequantize(torch.float32)


def modelopt(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    stored, scale, total = NVFP4QTensor.quantize(weight, 16)
    sizes = {-1: 16}
    back = stored.dequantize(torch.float32, scale=scale, double_scale=total, block_sizes=sizes)
    return scale, back


def compressed_tensors(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    args = preset_name_to_scheme("NVFP4A16", ["Linear"]).weights
    total = generate_gparam(weight.min(), weight.max())
    blocks = weight.reshape(weight.shape[0], -1, 16)
    scale, zero = calculate_qparams(blocks.amin(-1), blocks.amax(-1), args, global_scale=total)
    back = fake_quantize(weight, scale, torch.zeros_like(scale), args, global_scale=total)
    return scale.to(torch.float8_e4m3fn), back


half = torch.zeros(64, 64, dtype=torch.bfloat16)
half[:, :16] = torch.arange(16)
for writer in (torchao, modelopt, compressed_tensors):
    scale, back = writer(half)
    smallest = scale.float().min().item()
    print(f"{writer.__name__}: zero block {smallest:g} decoded {back[:, 16:].abs().max().item():g};", end=" ")
    scale, back = writer(torch.zeros(64, 64, dtype=torch.bfloat16))
    nan = back.isnan().float().mean().item()
    print(f"weight of zeros {scale.float().max().item():g} decoded {nan:.0%} NaN")
PY

expected='torchao: zero block 0.015625 decoded 0; weight of zeros nan decoded 100% NaN
modelopt: zero block 1 decoded 0; weight of zeros nan decoded 100% NaN
compressed_tensors: zero block 0.125 decoded 0; weight of zeros 0.125 decoded 0% NaN'
seen="$("$dir/venv/bin/python" -W ignore "$dir/check.py" 2> "$dir/log" || { cat "$dir/log" >&2; exit 1; })"
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
