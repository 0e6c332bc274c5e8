#!/usr/bin/env bash
# Software: torch 2.13.0 (CPU) and ml_dtypes 0.6.0, numpy 2.4.6.
# A good expert would guess: a cast to float8_e4m3fn does not saturate: above 464 it gives NaN, as ml_dtypes does, and so
#   does infinity; that is why quantizers clamp first. And e4m3fn and e5m2 behave alike in one release of torch.
# What happens: torch 2.13.0 saturates e4m3fn: 465, 1e6 and infinity all become 448, alone or in a long tensor. Its e5m2
#   does not: 61440 and infinity become infinity. Nor do the fnuz twins: they give NaN.
# Why it matters: a check "cast and look for NaN" no longer finds overflowing activations, infinities or a static scale
#   that is too small: they are finite, plausible 448s in the checkpoint. Code that is right on this release can give NaN
#   with ml_dtypes (JAX, numpy) on the same numbers, so clamp and look for infinities before casting.
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

values = {
    "float8_e4m3fn": [464.0, 465.0, 1e6, float("inf"), float("nan")],
    "float8_e5m2": [57344.0, 61440.0, 1e6, float("inf"), float("nan")],
    "float8_e4m3fnuz": [240.0, 249.0, 1e6, float("inf"), float("nan")],
    "float8_e5m2fnuz": [57344.0, 61441.0, 1e6, float("inf"), float("nan")],
}


def line(array: np.ndarray) -> str:
    return " ".join(f"{value:g}" for value in array.tolist())


for name, numbers in values.items():
    source = torch.tensor(numbers)
    cast = source.to(getattr(torch, name)).float()
    # Sixty-four of each at once and one alone: the vectorised and the scalar path are the same.
    many = source.repeat(64).to(getattr(torch, name)).float()[: len(numbers)]
    assert torch.equal(cast.nan_to_num(-1), many.nan_to_num(-1))
    other = np.array(numbers, np.float32).astype(getattr(ml_dtypes, name)).astype(np.float32)
    print(f"{name}: {line(source.numpy())}: torch {line(cast.numpy())}, ml_dtypes {line(other)}")
PY

expected='float8_e4m3fn: 464 465 1e+06 inf nan: torch 448 448 448 448 nan, ml_dtypes 448 nan nan nan nan
float8_e5m2: 57344 61440 1e+06 inf nan: torch 57344 inf inf inf nan, ml_dtypes 57344 inf inf inf nan
float8_e4m3fnuz: 240 249 1e+06 inf nan: torch 240 nan nan nan nan, ml_dtypes 240 nan nan nan nan
float8_e5m2fnuz: 57344 61441 1e+06 inf nan: torch 57344 nan nan nan nan, ml_dtypes 57344 nan nan nan nan'
seen="$("$dir/venv/bin/python" -W ignore "$dir/check.py" 2> "$dir/log" || { cat "$dir/log" >&2; exit 1; })"
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
