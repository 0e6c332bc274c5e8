#!/usr/bin/env bash
# Software: compressed-tensors 0.19.0 (torch 2.13.0, numpy 2.4.6, transformers 5.17.0, CPU).
# A good expert would guess: rounding to symmetric int4 with the usual absolute-maximum scale is idempotent, because the
#   largest weight of a group is met (scale = amax / 7): a decoded W4A16 checkpoint, rounded again with the same scheme
#   and group, gives the same codes and scales.
# What happens: the scale is amax / 7.5 (for int8 amax / 127.5), so a group's largest positive weight, 7.5 steps, is cut
#   to 7 and the largest negative one grows to -8. Rounded again, every group gets another scale (14/15 or 16/15 of
#   the first), 85 % of the weights move, and the error grows by a fifth each time. Weights of exactly -7 to 7 times
#   a step do not survive the first rounding either.
# Why it matters: "decode, then compress again with the same scheme" is not a way to convert formats, not even for a
#   checkpoint that this library wrote; codes and scales have to be carried over as they are.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip=("$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 numpy==2.4.6
printf 'torch==2.13.0\nnumpy==2.4.6\n' > "$dir/constraints.txt"
"${pip[@]}" -c "$dir/constraints.txt" transformers==5.17.0 compressed-tensors==0.19.0

cat > "$dir/check.py" <<'PY'
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams


def rounded(weight: torch.Tensor, bits: int, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    args = QuantizationArgs(num_bits=bits, symmetric=True, strategy="group", group_size=group)
    groups = weight.reshape(weight.shape[0], -1, group)
    scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), args)
    return fake_quantize(weight, scale, zero, args), scale


grid = torch.arange(-7.0, 9.0).clamp(max=7).reshape(1, 16)
once, scale = rounded(grid, 4, 16)
print(f"weights -7 to 7: scale {scale.item():.4f}, decoded {once.min():.3f} to {once.max():.3f}")
torch.manual_seed(0)
weight = torch.randn(256, 1024)
for bits in (4, 8):
    first, scale1 = rounded(weight, bits, 128)
    second, scale2 = rounded(first, bits, 128)
    third, _ = rounded(second, bits, 128)
    errors = [((w - weight).norm() / weight.norm()).item() for w in (first, second, third)]
    growth = ", ".join(f"{error / errors[0]:.1f}" for error in errors)
    moved = 100 * (first != second).float().mean().item()
    kept = (scale1 == scale2).float().mean().item()
    print(f"int{bits}: groups that keep their scale {kept:.0%}, weights that move over 80 %:", moved > 80)
    print(f"int{bits}: error after 1, 2, 3 roundings, relative to the first: {growth}")
PY

expected='weights -7 to 7: scale 0.9333, decoded -7.467 to 6.533
int4: groups that keep their scale 0%, weights that move over 80 %: True
int4: error after 1, 2, 3 roundings, relative to the first: 1.0, 1.2, 1.5
int8: groups that keep their scale 0%, weights that move over 80 %: True
int8: error after 1, 2, 3 roundings, relative to the first: 1.0, 1.2, 1.5'
seen="$("$dir/venv/bin/python" "$dir/check.py" 2> "$dir/log" || { cat "$dir/log" >&2; exit 1; })"
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
