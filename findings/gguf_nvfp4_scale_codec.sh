#!/usr/bin/env bash
# Software: gguf 0.19.0 (the Python package of llama.cpp's file format), numpy 2.4.6, ml_dtypes 0.6.0.
# A good expert would guess: the NVFP4 block type's scale encoder is E4M3 with the sign bit unused, rounding to nearest
#   even and capped at 448, so that encoding what a scale byte means gives this byte back.
# What happens: everything that rounds to 256 or more becomes 448: 250 does (E4M3: 256), 300 does (288). The six bytes
#   0x78 to 0x7d are read as 256 to 416 but never written. Ties go up (17 becomes 18, E4M3: 16), also below 2^-6.
#   The decoder halves every scale (its weights' table holds doubled E2M1 values), and 0x7f is zero, not NaN.
# Why it matters: a compressed-tensors or ModelOpt NVFP4 checkpoint has its largest block scale at 448 and others above
#   256 by design (the tensor scale puts amax there). Copied as bytes into GGUF they are right; decoded and encoded
#   again by this function, the blocks with the largest weights grow by up to 75 %.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip=("$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check)
"${pip[@]}" numpy==2.4.6 ml_dtypes==0.6.0 gguf==0.19.0

cat > "$dir/check.py" <<'PY'
import ml_dtypes
import numpy as np
from gguf.quants import NVFP4


def stored(values: np.ndarray) -> np.ndarray:
    """What a scale means after encoding; decoding has a factor of a half for doubled codes."""
    return NVFP4.ue4m3_to_fp32(NVFP4.fp32_to_ue4m3(values)) * 2


codes = np.arange(0x7F, dtype=np.uint8)
meant = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
print("decoder is E4M3 / 2:", bool((NVFP4.ue4m3_to_fp32(codes) == meant / 2).all()))
print("byte 0x7f decodes to", NVFP4.ue4m3_to_fp32(np.array([0x7F], np.uint8))[0])
lost = codes[NVFP4.fp32_to_ue4m3(meant) != codes]
print("bytes that do not come back:", " ".join(f"{code:#x}" for code in lost))
print("value: stored as, E4M3")
for value in (16.0, 17.0, 240.0, 250.0, 300.0, 416.0, 2.5 * 2**-9):
    one = np.array([value], np.float32)
    exact = one.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)[0]
    print(f"{value:g}: {stored(one)[0]:g}, {exact:g}")
PY

expected='decoder is E4M3 / 2: True
byte 0x7f decodes to 0.0
bytes that do not come back: 0x78 0x79 0x7a 0x7b 0x7c 0x7d
value: stored as, E4M3
16: 16, 16
17: 18, 16
240: 240, 240
250: 448, 256
300: 448, 288
416: 448, 416
0.00488281: 0.00585938, 0.00390625'
seen="$("$dir/venv/bin/python" "$dir/check.py")"
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
