#!/usr/bin/env bash
# Software: nvidia-modelopt 0.47.0, gguf 0.19.0, torchao 0.18.0, compressed-tensors 0.19.0 (torch 2.13.0, CPU).
# A good expert would guess: with the block scale given, MXFP4 codes follow from it: round to nearest, ties to the even
#   code as in IEEE 754, zero is code 0; and one library rounds the same E2M1 numbers in one way.
# What happens: compressed-tensors and torchao do so. gguf and ModelOpt's MXFP4QTensor break ties toward zero (0.75 is
#   0.5, not 1; 5 is 4 with all). ModelOpt's NVFP4QTensor, beside it, takes the even code. And MXFP4QTensor stores
#   positive zero as code 8, minus zero: a weight of zeros is 0x88 bytes.
# Why it matters: ties are common. bfloat16 weights have 8 significant bits, so about one in a hundred lies exactly
#   between two codes, and a byte comparison of two right checkpoints shows a difference in many blocks. Padding a
#   ModelOpt checkpoint with zero bytes, or testing codes for 0, is not what its own zeros look like.
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
"${pip[@]}" gguf==0.19.0

cat > "$dir/check.py" <<'PY'
import gguf
import torch
from compressed_tensors.quantization import preset_name_to_scheme
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from modelopt.torch.quantization.qtensor import MXFP4QTensor, NVFP4QTensor
from torchao.prototype.mx_formats.mx_tensor import MXTensor

# Block 0: amax 6, so that every writer's scale is 1 and the other values are ties. Block 1: zeros.
ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
weight = torch.zeros(2, 32)
weight[0, :15] = torch.cat([torch.tensor([6.0]), ties, -ties])


def modelopt_nvfp4() -> torch.Tensor:
    # Tensor scale 6 / 2688 and block scale 448 make 1, so the same numbers are ties.
    stored, scale, total = NVFP4QTensor.quantize(weight, 16)
    sizes = {-1: 16}
    return stored.dequantize(torch.float32, scale=scale, double_scale=total, block_sizes=sizes)


def compressed_tensors() -> torch.Tensor:
    args = preset_name_to_scheme("MXFP4A16", ["Linear"]).weights
    ones = torch.ones(2, 1)
    return fake_quantize(weight, ones, torch.zeros_like(ones), args)


def torchao() -> torch.Tensor:
    return MXTensor.to_mx(weight, torch.float4_e2m1fn_x2, 32).dequantize(torch.float32)


def gguf_mxfp4() -> torch.Tensor:
    kind = gguf.GGMLQuantizationType.MXFP4
    return torch.from_numpy(gguf.dequantize(gguf.quantize(weight.numpy(), kind), kind))


def modelopt_mxfp4() -> torch.Tensor:
    stored, scale = MXFP4QTensor.quantize(weight, block_size=32)
    zeros = {hex(byte) for byte in stored._quantized_data[1].tolist()}
    print("ModelOpt MXFP4, bytes of zeros:", *zeros)
    return stored.dequantize(torch.float32, scale=scale, block_sizes={-1: 32})


print("ties:", " ".join(f"{value:g}" for value in ties.tolist()))
for writer in (compressed_tensors, torchao, modelopt_nvfp4, gguf_mxfp4, modelopt_mxfp4):
    row = writer()[0]
    assert row[0] == 6 and torch.equal(row[1:8].abs(), row[8:15].abs())
    print(f"{writer.__name__}:", " ".join(f"{value:g}" for value in row[1:8].abs().tolist()))
torch.manual_seed(0)
blocks = (torch.randn(4096, 32) * 0.02).bfloat16().float()
scaled = blocks / torch.exp2(torch.floor(torch.log2(blocks.abs().amax(-1, keepdim=True))) - 2)
exact = torch.isin(scaled.abs(), ties)
print(f"of normal bfloat16 weights, more than half a percent are ties: {exact.float().mean() > 0.005}")
PY

expected='ties: 0.25 0.75 1.25 1.75 2.5 3.5 5
compressed_tensors: 0 1 1 2 2 4 4
torchao: 0 1 1 2 2 4 4
modelopt_nvfp4: 0 1 1 2 2 4 4
gguf_mxfp4: 0 0.5 1 1.5 2 3 4
ModelOpt MXFP4, bytes of zeros: 0x88
modelopt_mxfp4: 0 0.5 1 1.5 2 3 4
of normal bfloat16 weights, more than half a percent are ties: True'
seen="$("$dir/venv/bin/python" -W ignore "$dir/check.py" 2> "$dir/log" || { cat "$dir/log" >&2; exit 1; })"
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
