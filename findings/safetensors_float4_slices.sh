#!/usr/bin/env bash
# Software: safetensors 0.8.0 with torch 2.13.0 (CPU), numpy 2.4.6.
# A good expert would guess: the dtypes that safetensors writes can be read in every way that it reads: whole, by slices
#   (get_slice, how tensor-parallel loaders take their part) and through numpy; shapes are those of the tensor saved.
# What happens: float4_e2m1fn_x2 of shape [4, 8] is written as F4 with shape [4, 16] and comes back whole as [4, 8]. Its
#   slices raise, even the slice of everything. The same bytes as U8 slice well, and so do the float8 types. numpy
#   raises for F4 and for F8_E4M3 and F8_E8M0 too, although ml_dtypes gives numpy these types.
# Why it matters: a checkpoint with native four-bit tensors has no partial reading in torch: loaders that shard by slices
#   fail. Storing packed codes as U8 (as llm-compressor, ModelOpt and gpt-oss do) is what works. Sizes computed from the
#   header must halve F4, and a tool without torch has to read FP8 bytes by itself.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check safetensors==0.8.0 ml_dtypes==0.6.0

cat > "$dir/check.py" <<'PY'
import json
import sys

import ml_dtypes
import torch
from safetensors import safe_open
from safetensors.torch import save_file

path = sys.argv[1]
codes = torch.arange(32, dtype=torch.uint8).reshape(4, 8)
kinds = ("uint8", "float4_e2m1fn_x2", "float8_e4m3fn", "float8_e8m0fnu")
save_file({kind: codes.clone().view(getattr(torch, kind)) for kind in kinds}, path)
print(f"ml_dtypes {ml_dtypes.__version__}, which gives numpy such types, is imported")
with open(path, "rb") as file:
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))


def attempt(action) -> str:
    try:
        result = action()
    except (RuntimeError, AttributeError, TypeError) as error:
        return type(error).__name__
    return str(list(result.shape))


with safe_open(path, "pt") as torch_file, safe_open(path, "np") as numpy_file:
    for kind in kinds:
        entry = header[kind]
        part = torch_file.get_slice(kind)
        tried = {
            "whole": lambda: torch_file.get_tensor(kind),
            "[1:3]": lambda: part[1:3],
            "[:, :4]": lambda: part[:, :4],
            "[:]": lambda: part[:],
            "numpy": lambda: numpy_file.get_tensor(kind),
        }
        seen = ", ".join(f"{name} {attempt(action)}" for name, action in tried.items())
        print(f"{entry['dtype']} {entry['shape']}: {seen}")
PY

expected='ml_dtypes 0.6.0, which gives numpy such types, is imported
U8 [4, 8]: whole [4, 8], [1:3] [2, 8], [:, :4] [4, 4], [:] [4, 8], numpy [4, 8]
F4 [4, 16]: whole [4, 8], [1:3] RuntimeError, [:, :4] RuntimeError, [:] RuntimeError, numpy AttributeError
F8_E4M3 [4, 8]: whole [4, 8], [1:3] [2, 8], [:, :4] [4, 4], [:] [4, 8], numpy AttributeError
F8_E8M0 [4, 8]: whole [4, 8], [1:3] [2, 8], [:, :4] [4, 4], [:] [4, 8], numpy AttributeError'
seen="$("$dir/venv/bin/python" -W ignore "$dir/check.py" "$dir/x.safetensors" 2> "$dir/log" || { cat "$dir/log" >&2; exit 1; })"
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
