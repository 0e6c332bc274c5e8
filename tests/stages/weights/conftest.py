"""Small checkpoints, written by safetensors and gguf themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    make = torch.Generator().manual_seed(0)
    return {
        f"model.layers.{i}.{name}.weight": torch.randn(shape, generator=make).to(torch.bfloat16)
        for i in range(3)
        for name, shape in {"proj": (6, 4), "norm": (4,)}.items()
    }


@pytest.fixture
def sharded(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """Three shards, one a layer, with an index."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    weight_map = {}
    for i in range(3):
        name = f"model-0000{i + 1}-of-00003.safetensors"
        mine = {n: t for n, t in tensors.items() if f".{i}." in n}
        save_file(mine, folder / name)
        weight_map |= dict.fromkeys(mine, name)
    write_index(folder, weight_map)
    return folder


def write_index(folder: Path, weight_map: object) -> None:
    text = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text)
