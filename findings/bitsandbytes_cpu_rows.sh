#!/usr/bin/env bash
# Software: bitsandbytes 0.50.2 (torch 2.13.0, CPU).
# A good expert would guess: quantize_4bit and dequantize_4bit agree, whatever the shape; or an odd one raises.
# What happens: blocks of 64 run over the whole matrix when it is quantized, but the CPU kernel that decodes looks for a
#   row's blocks as if rows were whole blocks. Where a row is no multiple of the block size, nearly all values but those
#   of the first rows get the scale of another block. With 96 columns the largest error is four times that of
#   bitsandbytes' own plain implementation; with 128 the two agree. No error, no warning.
# Why it matters: a model with such widths, wherever it was quantized, gives wrong results on a CPU; and whoever takes
#   the CPU's result as the reference for a reader of such files mends what is right.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip=("$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 numpy==2.4.6
printf 'torch==2.13.0\nnumpy==2.4.6\n' > "$dir/constraints.txt"
"${pip[@]}" -c "$dir/constraints.txt" bitsandbytes==0.50.2

cat > "$dir/check.py" <<'PY'
import sys

import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute as plain
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

errors = {}
for columns in (96, 128):
    weight = torch.randn(64, columns, generator=torch.Generator().manual_seed(0))
    codes, state = quantize_4bit(weight, quant_type="nf4")
    kernel = dequantize_4bit(codes, state)
    own = plain(codes.reshape(-1), state.absmax, state.code, state.blocksize, state.shape, kernel.dtype)
    errors[columns] = (float((kernel - weight).abs().max()), float((own - weight).abs().max()))
    print(f"{columns} columns: largest error {errors[columns][0]:.2f} by the CPU kernel, "
          f"{errors[columns][1]:.2f} by the plain implementation")
(wrong, right), (same, other) = errors[96], errors[128]
sys.exit(0 if wrong > 2 * right and same == other else 1)
PY
"$dir/venv/bin/python" "$dir/check.py"
