#!/usr/bin/env bash
# Software: mlx 0.32.4 with its CPU backend (mlx-cpu 0.32.4), numpy 2.4.6.
# A good expert would guess, as mlx's own documentation says: mode "affine" has scale (max - min) / 15 and bias min, so
#   scales are positive, code 0 is the smallest weight and code 15 the largest.
# What happens: the bias is the edge that lies farther from zero, and the scale, away from it, is negative where that
#   edge is the maximum (code 0 is then the LARGEST weight). The scale is also stretched so that zero falls on a code,
#   and the other edge is no longer met: 0.20 comes back as 0.204 where min would have been kept. Two groups with the
#   same numbers and opposite signs get opposite scales.
# Why it matters: about half of the groups of an MLX checkpoint have negative scales. A converter or checker that
#   demands positive ones, or takes the bias for the minimum, or stores zero points as round(-bias / scale) without
#   thinking of the sign, is wrong on them; zero itself is exact to float32, unlike with (max - min) / 15.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check mlx==0.32.4 mlx-cpu==0.32.4 numpy==2.4.6

cat > "$dir/check.py" <<'PY'
import mlx.core as mx
import numpy as np

groups = {
    "min -1.00, max 0.50": [-1.0] + [0.1] * 30 + [0.5],
    "min -0.50, max 1.00": [1.0] + [-0.1] * 30 + [-0.5],
    "min  0.20, max 0.51": [0.2 + 0.01 * i for i in range(32)],
}
for name, values in groups.items():
    weights = np.array([values], np.float32)
    codes, scale, bias = mx.quantize(mx.array(weights), group_size=32, bits=4)
    back = np.array(mx.dequantize(codes, scale, bias, group_size=32, bits=4))
    low, high = weights.min(), weights.max()
    print(
        f"{name}: documented scale {(high - low) / 15:.4f} bias {low:.2f};"
        f" stored {scale.item():.4f} {bias.item():.2f}; decoded {back.min():.4f} to {back.max():.4f}"
    )
rng = np.random.default_rng(0)
weights = rng.standard_normal((1024, 1024)).astype(np.float32)
scales = np.array(mx.quantize(mx.array(weights), group_size=64, bits=4)[1])
print(f"normal weights: negative scales in {100 * (scales < 0).mean():.0f} % of groups")
PY

expected='min -1.00, max 0.50: documented scale 0.1000 bias -1.00; stored 0.1000 -1.00; decoded -1.0000 to 0.5000
min -0.50, max 1.00: documented scale 0.1000 bias -0.50; stored -0.1000 1.00; decoded -0.5000 to 1.0000
min  0.20, max 0.51: documented scale 0.0207 bias 0.20; stored -0.0204 0.51; decoded 0.2040 to 0.5100
normal weights: negative scales in 50 % of groups'
seen="$("$dir/venv/bin/python" "$dir/check.py")"
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
