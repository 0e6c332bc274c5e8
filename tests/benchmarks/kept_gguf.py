"""Time and memory of `modifier=keep` from a GGUF file of Q4_0, beside `cp` of both files.

`python -m tests.benchmarks.kept_gguf FOLDER --layers 8 --hidden 2048` writes the file there first
(with random codes), then runs the job in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import gguf
import numpy as np

Q4_0, BLOCK, BYTES = gguf.GGMLQuantizationType.Q4_0, 32, 18
TEXT = 64


def write_file(path: Path, layers: int, hidden: int, inner: int) -> None:
    """A llama whose layers' matrices are Q4_0, of random codes and scales of either sign."""
    writer = gguf.GGUFWriter(path, "llama", use_temp_file=False)
    writer.add_block_count(layers)
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(hidden // 64)
    writer.add_head_count_kv(hidden // 64)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(64)
    writer.add_tokenizer_model("gpt2")
    tokens = ["<s>", "</s>", "<unk>", *(chr(97 + i) for i in range(26)), "ab", "cd", "ef"]
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * 29])
    writer.add_array("tokenizer.ggml.merges", ["a b", "c d", "e f"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    draw = np.random.default_rng(0)
    writer.add_tensor("token_embd.weight", draw.standard_normal((32, hidden), np.float32))
    writer.add_tensor("output_norm.weight", np.ones(hidden, np.float32))
    square = ("attn_q", "attn_k", "attn_v", "attn_output")
    for i in range(layers):
        shapes = dict.fromkeys(square, (hidden, hidden))
        shapes |= {
            "ffn_gate": (inner, hidden),
            "ffn_up": (inner, hidden),
            "ffn_down": (hidden, inner),
        }
        for name, (rows, columns) in shapes.items():
            blocks = draw.integers(0, 255, (rows, columns // BLOCK, BYTES), np.uint8)
            scales = draw.normal(0.0, 0.01, (rows, columns // BLOCK)).astype("<f2")
            blocks[..., :2] = scales[..., None].view(np.uint8)
            data = blocks.reshape(rows, -1)
            writer.add_tensor(f"blk.{i}.{name}.weight", data, raw_dtype=Q4_0)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{name}.weight", np.ones(hidden, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def job(folder: Path, file: Path) -> tuple[float, int]:
    """Seconds and peak resident bytes of a run that keeps the file's numbers."""
    words = [
        *("device=cpu", "model=gguf", f"model.path={file}", "modifier=keep", "scheme=w4a16"),
        *("scheme.weights.group_size=32", "eval=none", f"store.dir={folder / 'store'}"),
        f"hydra.run.dir={folder / 'run'}",
    ]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "pipeline", *words])
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the job ended with {status}")
    return time.perf_counter() - start, used.ru_maxrss * 1024


def copied(file: Path, target: Path) -> float:
    """Seconds that `cp` and writing it to the disk take."""
    start = time.perf_counter()
    subprocess.run(["cp", file, target], check=True)
    subprocess.run(["sync", target], check=True)
    seconds = time.perf_counter() - start
    target.unlink()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--inner", type=int, default=5632)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    file = given.folder / "random.gguf"
    write_file(file, given.layers, given.hidden, given.inner)
    first = copied(file, given.folder / "copy")
    seconds, memory = job(given.folder, file)
    written = [path for path in given.folder.glob("run/checkpoint/*.safetensors")]
    second = sum(copied(path.resolve(), given.folder / "copy") for path in written)
    size, made = file.stat().st_size, sum(path.stat().st_size for path in written)
    both = first + second
    sys.stdout.write(
        f"{size / 1e9:.2f} GB to {made / 1e9:.2f} GB: {seconds:.1f} s, cp of both {both:.1f} s "
        f"({seconds / both:.1f} times), peak memory {memory / 1e9:.2f} GB\n"
    )


if __name__ == "__main__":
    main()
