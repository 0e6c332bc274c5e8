#!/usr/bin/env bash
# Software: compressed-tensors 0.19.0, torchao 0.18.0, nvidia-modelopt 0.47.0, gguf 0.19.0, mlx 0.32.4 (torch 2.13.0,
#   CPU).
# A good expert would guess: an MX block's scale follows the specification, 2^(floor(log2 amax) - 2) for E2M1 and - 8
#   for E4M3, so all writers store one E8M0 byte for one block; and amax 448, E4M3's largest value, has scale 1.
# What happens: three rules for MXFP4. For amax 6.5 and 7 torchao's default and gguf store scale 1 and clip to 6;
#   ModelOpt and mlx store 2 for both; compressed-tensors stores 1 for 6.5 and 2 for 7. In MXFP8 compressed-tensors
#   rounds the largest value up as for four-bit codes: 448 gets scale 2, where every other writer gives 1.
# Why it matters: whether the largest weight of a block is clipped by 14 %, or its small weights get half the
#   resolution, is decided by the tool and not by the format. "MXFP4, round to nearest" names no unique checkpoint;
#   results of two tools are not comparable, and scale bytes that differ are no defect.
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
"${pip[@]}" gguf==0.19.0 mlx==0.32.4 mlx-cpu==0.32.4

cat > "$dir/check.py" <<'PY'
import gguf
import mlx.core as mx
import numpy as np
import torch
from compressed_tensors.quantization import preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams
from modelopt.torch.quantization.qtensor import MXFP4QTensor, MXFP8QTensor
from torchao.prototype.mx_formats.mx_tensor import MXTensor


def from_compressed_tensors(block: torch.Tensor, bits: int) -> float:
    args = preset_name_to_scheme(f"MXFP{bits}A16", ["Linear"]).weights
    return calculate_qparams(block.amin(-1), block.amax(-1), args)[0].item()


def from_torchao(block: torch.Tensor, bits: int) -> float:
    kind = torch.float4_e2m1fn_x2 if bits == 4 else torch.float8_e4m3fn
    return decoded(MXTensor.to_mx(block, kind, 32).scale)


def from_modelopt(block: torch.Tensor, bits: int) -> float:
    if bits == 4:
        return decoded(MXFP4QTensor.quantize(block, block_size=32)[1])
    return decoded(MXFP8QTensor.quantize(block)[1])


def from_mlx(block: torch.Tensor, bits: int) -> float:
    return 2.0 ** (mx.quantize(mx.array(block.numpy()), mode=f"mxfp{bits}")[1].item() - 127)


def from_gguf(block: torch.Tensor, bits: int) -> float | None:
    if bits == 8:
        return None
    byte = gguf.quantize(block.numpy(), gguf.GGMLQuantizationType.MXFP4)[0, 0]
    return float(2.0 ** (np.int64(byte) - 127))


def decoded(scale: torch.Tensor) -> float:
    return 2.0 ** (scale.view(torch.uint8).item() - 127)


writers = (from_torchao, from_gguf, from_compressed_tensors, from_modelopt, from_mlx)
print("scale for amax: MXFP4 6 | 6.5 | 7 | 8, MXFP8 384 | 448 | 512")
for writer in writers:
    values = []
    for largest in (6.0, 6.5, 7.0, 8.0, 384.0, 448.0, 512.0):
        bits = 4 if largest < 10 else 8
        block = torch.zeros(1, 32)
        block[0, 3] = largest
        value = writer(block, bits)
        values.append("none" if value is None else f"{value:g}")
    print(f"{writer.__name__.removeprefix('from_')}:", " ".join(values))
PY

expected='scale for amax: MXFP4 6 | 6.5 | 7 | 8, MXFP8 384 | 448 | 512
torchao: 1 1 1 2 1 1 2
gguf: 1 1 1 2 none none none
compressed_tensors: 1 1 2 2 1 2 2
modelopt: 1 2 2 2 1 1 2
mlx: 1 2 2 2 1 1 2'
seen="$("$dir/venv/bin/python" -W ignore "$dir/check.py" 2> "$dir/log" || { cat "$dir/log" >&2; exit 1; })"
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
