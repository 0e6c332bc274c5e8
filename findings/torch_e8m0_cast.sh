#!/usr/bin/env bash
# Software: torch 2.13.0 (CPU) and ml_dtypes 0.6.0, numpy 2.4.6.
# A good expert would guess: casting to float8_e8m0fnu, the scale type of MX blocks, is a cast to the nearest power of
#   two with ties to the even code, that has no sign and so makes NaN of a negative number, and that both libraries agree.
# What happens: torch drops the sign: -3 becomes 4. Ties go up: 1.5 to 2, 3 to 4, 6 to 8, where ties to the even
#   code would give 2, 2, 8. Zero becomes 2^-127 in torch. ml_dtypes makes NaN of negative numbers and of zero. 1.4999,
#   held in bfloat16, is 1.5 already and becomes 2. A finite number that rounds to 2^128 becomes NaN in both.
# Why it matters: neither is a block scale by the MX specification (floor of the exponent of amax, less that of the
#   element type's largest value), so `(amax / 6).to(float8_e8m0fnu)` sometimes clips the block; a sign error in a
#   scale passes unseen; the byte of an all-zero block depends on the library.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check ml_dtypes==0.6.0

cat > "$dir/check.py" <<'PY'
import ml_dtypes
import numpy as np
import torch


def name(code: int) -> str:
    return "NaN" if code == 255 else "2^-127" if code == 0 else f"{2.0 ** (code - 127):g}"


values = [0.0, -1.0, -3.0, 1.4, 1.4999, 1.5, 3.0, 6.0, 3.4e38, float("inf")]
print("value: torch, torch from bfloat16, ml_dtypes")
for value in values:
    # Sixty-four at once and one alone: the vectorised and the scalar path are the same.
    many = torch.full((64,), value).to(torch.float8_e8m0fnu).view(torch.uint8)
    alone = torch.tensor([value]).to(torch.float8_e8m0fnu).view(torch.uint8)
    assert (many == alone).all()
    half = torch.tensor([value]).bfloat16().to(torch.float8_e8m0fnu).view(torch.uint8)
    other = np.array([value], np.float32).astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)
    print(f"{value:g}: {name(alone.item())}, {name(half.item())}, {name(int(other[0]))}")
PY

expected='value: torch, torch from bfloat16, ml_dtypes
0: 2^-127, 2^-127, NaN
-1: 1, 1, NaN
-3: 4, 4, NaN
1.4: 1, 1, 1
1.4999: 1, 2, 1
1.5: 2, 2, 2
3: 4, 4, 4
6: 8, 8, 8
3.4e+38: NaN, NaN, NaN
inf: NaN, NaN, NaN'
seen="$("$dir/venv/bin/python" -W ignore "$dir/check.py")"
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
