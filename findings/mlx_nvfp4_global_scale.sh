#!/usr/bin/env bash
# Software: mlx 0.32.4 with its CPU backend (mlx-cpu 0.32.4), numpy 2.4.6.
# A good expert would guess: mode "nvfp4" is two-level NVFP4 (an E4M3 scale for 16 weights and one float32 scale for the
#   tensor), so the relative error does not depend on the size of the weights; and if a global scale is given, it is
#   amax / 2688 as ModelOpt and torchao store it, or its inverse as compressed-tensors does.
# What happens: by default there is no tensor scale. Block scales are amax / 6 in E4M3, whose smallest value is 2^-9: at
#   a standard deviation of 0.02 the error has grown, at 0.001 EVERY weight is stored as zero, without a word. With
#   `global_scale` the error is flat again, but its value is a third convention: the absolute maximum itself. Given
#   amax / 2688, nearly the whole tensor is lost (error 1.0), again without an exception.
# Why it matters: deviations of 0.01 to 0.02 are usual in wide layers; an NVFP4 checkpoint made by the
#   default is worse than MXFP4 from about 0.01 down, and a converter must know which of three numbers is meant.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check mlx==0.32.4 mlx-cpu==0.32.4 numpy==2.4.6

cat > "$dir/check.py" <<'PY'
import mlx.core as mx
import numpy as np


def error(weights: np.ndarray, mode: str, scale: float | None = None) -> float:
    given = {} if scale is None else {"global_scale": mx.array(scale, dtype=mx.float32)}
    stored = mx.quantize(mx.array(weights), mode=mode, **given)
    back = np.array(mx.dequantize(*stored, mode=mode, dtype=mx.float32, **given))
    return float(np.linalg.norm(back - weights) / np.linalg.norm(weights))


rng = np.random.default_rng(0)
normal = rng.standard_normal((256, 256)).astype(np.float32)
print("deviation  nvfp4  mxfp4  nvfp4 with amax  with amax/2688")
for deviation in (1.0, 0.1, 0.02, 0.005, 0.001):
    weights = normal * np.float32(deviation)
    amax = float(np.abs(weights).max())
    errors = [
        error(weights, "nvfp4"),
        error(weights, "mxfp4"),
        error(weights, "nvfp4", amax),
        error(weights, "nvfp4", amax / 2688),
    ]
    print(f"{deviation:g}: " + " ".join(f"{value:.2f}" for value in errors))
PY

expected='deviation  nvfp4  mxfp4  nvfp4 with amax  with amax/2688
1: 0.09 0.12 0.09 1.00
0.1: 0.09 0.12 0.09 1.00
0.02: 0.10 0.12 0.09 1.00
0.005: 0.14 0.12 0.09 1.00
0.001: 1.00 0.12 0.09 1.00'
seen="$("$dir/venv/bin/python" "$dir/check.py")"
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
