#!/usr/bin/env bash
# Software: bitsandbytes 0.50.2 on a CPU (torch 2.13.0, numpy 2.4.6).
# A good expert would guess: quant_type="fp4" is the usual four-bit float, E2M1, scaled so that the largest value is
#   the block's absolute maximum: multiplied by 6 the codes are 0, 0.5, 1, 1.5, 2, 3, 4, 6 in this order.
# What happens: the smallest code is not 0.5 but 0.03125, a sixteenth of it, and the codes are in another order.
#   Magnitudes are 0, 0.03125, 4, 6, 2, 3, 1, 1.5 for codes 0 to 7. A weight of 0.5 comes back as 0.03125; everything
#   between about 0.02 and 0.5 collapses onto that step. The first weight of a pair has the byte's high nibble.
# Why it matters: converting such a checkpoint to MXFP4 or NVFP4 code by code is wrong, even where the scale can be
#   said; only the table stored in `quant_map` is right. And 0.03125 has no place on an E2M1 grid of the same scale.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip=("$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 numpy==2.4.6
"${pip[@]}" --no-deps bitsandbytes==0.50.2
"${pip[@]}" packaging

cat > "$dir/check.py" <<'PY'
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

e2m1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
weights = torch.tensor(e2m1 * 8).reshape(1, 64)
packed, state = quantize_4bit(weights, blocksize=64, quant_type="fp4")
back = dequantize_4bit(packed, state).reshape(-1)[:8]


def line(values: torch.Tensor) -> str:
    return " ".join(f"{value:g}" for value in values.double().tolist())


bytes_ = packed.reshape(-1)[:4].tolist()
print("codes 0..7 times 6:", line((state.code[:8] * 6).round(decimals=5)))
print("E2M1 values in:    ", line(weights[0, :8]))
print("come back as:      ", line(back.round(decimals=5)))
print("high, low nibbles: ", " ".join(f"{byte >> 4},{byte & 15}" for byte in bytes_))
PY

expected='codes 0..7 times 6: 0 0.03125 4 6 2 3 1 1.5
E2M1 values in:     0 0.5 1 1.5 2 3 4 6
come back as:       0 0.03125 1 1.5 2 3 4 6
high, low nibbles:  0,1 6,7 4,5 2,3'
seen="$("$dir/venv/bin/python" "$dir/check.py" 2> "$dir/log" || { cat "$dir/log" >&2; exit 1; })"
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
