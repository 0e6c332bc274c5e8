"""Layers that only round: written module by module, to the same bytes as by way of memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.compress.modifiers.rtn import Rtn
from stages.compress.stage import CompressConfig
from stages.formats.layer_file import SHARD
from tests.stages.compress.layers import Run, compress, info
from tests.stages.formats.presets import load
from tests.stages.model.tiny import Tiny, tiny

WIDE = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "num_hidden_layers": 2}


@pytest.fixture
def llama(tmp_path: Path) -> Tiny:
    return tiny("llama", tmp_path / "model", dtype=torch.bfloat16, **WIDE)


def both(
    model: Tiny, config: CompressConfig, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> tuple[Run, Run]:
    """The same nodes straight to the file, and by way of memory."""
    straight = compress(model, config, folder / "straight", **more)
    with monkeypatch.context() as patched:
        patched.setattr("stages.compress.straight.announced", lambda layer: None)
        memory = compress(model, config, folder / "memory", **more)
    return straight, memory


def files(run: Run) -> list[dict[str, bytes]]:
    return [{p.name: p.read_bytes() for p in a.path.iterdir()} for a in run.artifacts]


@pytest.mark.parametrize("scheme", ["fp8_dynamic", "fp8_block", "w4a16", "w8a8", "w4a8"])
def test_every_byte_is_the_same(
    scheme: str, llama: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    monkeypatch.setattr(
        "stages.compress.result.write_tensors", lambda path, tensors: written.append(path)
    )
    compress(llama, CompressConfig(scheme=load(scheme)), tmp_path / "how")
    assert written == []
    monkeypatch.undo()
    straight, memory = both(llama, CompressConfig(scheme=load(scheme)), tmp_path, monkeypatch)
    assert files(straight) == files(memory)


def test_calibrated_inputs_and_other_solvers_go_by_way_of_memory(
    llama: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.compress.straight.PlacedFile", None)
    for i, (scheme, modifier) in enumerate(
        [("fp8", Rtn()), ("nvfp4a16", Rtn()), ("w4a16", Rtn(observer="mse"))]
    ):
        run = compress(
            llama, CompressConfig(scheme=load(scheme), modifiers=(modifier,)), tmp_path / str(i)
        )
        assert len(run.artifacts) == 2


def test_a_weight_that_is_not_finite_is_skipped_as_it_is_by_way_of_memory(
    llama: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = llama.path / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] = float("nan")
    save_file(tensors, path)
    modifier = replace(Rtn(), on_failure="skip")
    config = CompressConfig(scheme=load("fp8_dynamic"), modifiers=(modifier,))
    straight, memory = both(llama, config, tmp_path, monkeypatch)
    assert files(straight) == files(memory) and straight.warnings == memory.warnings
    assert len(info(straight.artifacts[1])["modules"]) == 6
    assert "model.layers.1.mlp.down_proj.weight" in load_file(straight.artifacts[1].path / SHARD)
