#!/usr/bin/env bash
# Software: torch 2.13.0 (CPU), numpy 2.4.6.
# A good expert would guess: multiplication commutes. And by torch's promotion rules a float32 scale of no dimensions
#   times a bfloat16 weight gives bfloat16, so the scale counts as a bfloat16 number, as if it had been cast before.
# What happens: the result is bfloat16, but weight * scale and weight / scale use the scale in full float32, while
#   scale * weight, scale / weight and weight + scale round it to bfloat16 first. w * s and s * w differ in a quarter
#   of the elements (with a Python number instead of the tensor they do not). In float16, half a scale of 100000 is
#   49984 in one order and infinity in the other. A scale of shape [1] makes float32 of the whole tensor, so whether
#   a per-tensor scale was stored as [1] or [] decides as well.
# Why it matters: quantizing and decoding with a per-tensor FP8 or NVFP4 scale gives other codes and other weights by the
#   order in which a line of code names its factors. Two implementations of one formula are equal to the bit only
#   if they cast explicitly: to float32 first, one rounding at the end.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6

cat > "$dir/check.py" <<'PY'
import torch

torch.manual_seed(0)
weight = torch.randn(256, 1024).bfloat16()
scale = torch.tensor(0.0123456)
wide, full, low = weight.float(), scale, scale.bfloat16().float()
cases = {
    "w * s": (weight * scale, wide * full, wide * low),
    "s * w": (scale * weight, full * wide, low * wide),
    "w / s": (weight / scale, wide / full, wide / low),
    "s / w": (scale / weight, full / wide, low / wide),
    "w + s": (weight + scale, wide + full, wide + low),
}
for name, (result, with_full, with_low) in cases.items():
    assert result.dtype == torch.bfloat16
    kinds = {"float32": with_full, "bfloat16": with_low}
    used = [kind for kind, value in kinds.items() if torch.equal(result, value.bfloat16())]
    print(f"{name}: scale used as {' or '.join(used)}")
differ = (weight * scale != scale * weight).float().mean().item()
print(f"w * s != s * w in more than 20 %: {differ > 0.2}")
half, large = torch.tensor([0.5], dtype=torch.float16), torch.tensor(1e5)
print(f"float16: 0.5 * s = {(half * large).item():g}, s * 0.5 = {(large * half).item():g}")
print(f"scale of shape [1]: {(weight * scale.reshape(1)).dtype}")
PY

expected='w * s: scale used as float32
s * w: scale used as bfloat16
w / s: scale used as float32
s / w: scale used as bfloat16
w + s: scale used as bfloat16
w * s != s * w in more than 20 %: True
float16: 0.5 * s = 49984, s * 0.5 = inf
scale of shape [1]: torch.float32'
seen="$("$dir/venv/bin/python" -W ignore "$dir/check.py" 2> "$dir/log" || { cat "$dir/log" >&2; exit 1; })"
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
