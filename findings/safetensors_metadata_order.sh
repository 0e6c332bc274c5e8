#!/usr/bin/env bash
# Software: safetensors 0.8.0 (with numpy 2.4.6).
# A good expert would guess: one set of tensors and one metadata dict give one file, byte for byte; the format has no
#   timestamp and tensors are laid out in a fixed order, so shards can be compared or cached by their SHA-256.
# What happens: with one metadata key (transformers' {"format": "pt"}) that holds. With more, every process writes the
#   keys of `__metadata__` in a random order of its own, whatever the order of the dict: same tensors, same metadata,
#   same length, another hash. Tensor entries and their bytes stay put.
# Why it matters: whoever stores a recipe or a version beside the format in a compressed shard loses reproducible
#   hashes; compare the parsed header and the data part instead, or write the header oneself.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6

cat > "$dir/write.py" <<'PY'
import sys

import numpy as np
from safetensors.numpy import save_file

path, keys = sys.argv[1], int(sys.argv[2])
metadata = {"format": "pt", **{f"note{i}": str(i) for i in range(1, keys)}}
save_file({"b": np.ones(3, np.float32), "a": np.ones(5, np.int64)}, path, metadata)
PY

cat > "$dir/check.py" <<'PY'
import hashlib
import json
import pathlib
import subprocess
import sys

folder = pathlib.Path(sys.argv[1])


def write(keys: int, run: int) -> bytes:
    path = folder / f"{keys}_{run}.safetensors"
    subprocess.run([sys.executable, folder / "write.py", path, str(keys)], check=True)
    return path.read_bytes()


def parts(file: bytes) -> tuple[dict, bytes]:
    end = 8 + int.from_bytes(file[:8], "little")
    return json.loads(file[8:end]), file[end:]


for keys in (1, 8):
    files = [write(keys, run) for run in range(6)]
    hashes = {hashlib.sha256(file).hexdigest() for file in files}
    same = all(parts(file) == parts(files[0]) for file in files)
    what = "one hash" if len(hashes) == 1 else "several hashes"
    lengths = len({len(file) for file in files})
    print(f"{keys} metadata keys, 6 processes: {what}, {lengths} length, parsed equal: {same}")
PY

expected='1 metadata keys, 6 processes: one hash, 1 length, parsed equal: True
8 metadata keys, 6 processes: several hashes, 1 length, parsed equal: True'
seen="$("$dir/venv/bin/python" "$dir/check.py" "$dir")"
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
