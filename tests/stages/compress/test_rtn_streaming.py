"""Layers that only round: written module by module, to the same bytes as by way of memory."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.stage import Site, Stage
from stages.compress.modifiers.gptq import Gptq
from stages.compress.modifiers.rtn import Rtn
from stages.compress.stage import Compress, CompressConfig
from stages.compute.numerics import Numerics
from stages.formats.layer_artifact import SHARD
from stages.weights.checkpoint_files import find_weights
from stages.weights.row_bands import streaming_bytes
from stages.weights.safetensors_source import SafetensorsSource
from tests.stages.compress.layers import Run, compress, info
from tests.stages.model.tiny import Tiny, tiny
from tests.stages.schemes.presets import load

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
        patched.setattr("stages.compress.rtn_streaming.is_straight", lambda config, layer: False)
        memory = compress(model, config, folder / "memory", **more)
    return straight, memory


def spoil(model: Tiny, *, row: int, value: float) -> None:
    """Put a value that is not finite into one weight of the last layer."""
    path = model.path / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.down_proj.weight"][row, 5] = value
    save_file(tensors, path)


def files(run: Run) -> list[dict[str, bytes]]:
    return [{p.name: p.read_bytes() for p in a.path.iterdir()} for a in run.artifacts]


@pytest.mark.parametrize("scheme", ["fp8_dynamic", "fp8_block", "w4a16", "w8a8", "w4a8"])
def test_every_byte_is_the_same(
    scheme: str, llama: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.setattr("stages.compress.layer.writer.ShardContent", None)
        compress(llama, CompressConfig(scheme=load(scheme)), tmp_path / "how")
    straight, memory = both(llama, CompressConfig(scheme=load(scheme)), tmp_path, monkeypatch)
    assert files(straight) == files(memory)


def test_calibrated_inputs_and_other_solvers_go_by_way_of_memory(
    llama: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.compress.rtn_streaming.PlacedFile", None)
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
    spoil(llama, row=3, value=float("nan"))
    modifier = replace(Rtn(), on_failure="skip")
    config = CompressConfig(scheme=load("fp8_dynamic"), modifiers=(modifier,))
    straight, memory = both(llama, config, tmp_path, monkeypatch)
    assert files(straight) == files(memory) and straight.warnings == memory.warnings
    assert len(info(straight.artifacts[1])["modules"]) == 6
    assert "model.layers.1.mlp.down_proj.weight" in load_file(straight.artifacts[1].path / SHARD)


def test_the_way_straight_to_the_file_imports_neither_compressed_tensors_nor_transformers() -> None:
    code = (
        "import sys, stages.compress.rtn_streaming as straight;"
        "from stages.compress.stage import CompressConfig as C;"
        "from tests.stages.schemes.presets import load;"
        "straight.warm_up(C(scheme=load('fp8_dynamic')));"
        "straight.warm_up(C(scheme=load('w4a16')));"
        "print([n for n in ('compressed_tensors', 'transformers') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("scheme", "modifiers", "dtype", "work"),
    [
        ("fp8_dynamic", (), "bfloat16", "rtn_streaming"),
        ("w4a16", (Rtn(),), "bfloat16", "rtn_streaming"),
        ("w4a16", (Rtn(observer="mse"),), "bfloat16", "run"),
        ("w4a16", (), "float32", "run"),
        ("w4a16_asym", (), "bfloat16", "run"),
        ("fp8", (), "bfloat16", "run"),
    ],
)
def test_a_stage_names_the_modules_of_the_way_its_layers_will_go(
    scheme: str, modifiers: tuple[Rtn, ...], dtype: str, work: str, tmp_path: Path
) -> None:
    model = tiny("llama", tmp_path / "model", dtype=getattr(torch, dtype), **WIDE)
    stage = Compress(CompressConfig(scheme=load(scheme), modifiers=modifiers))
    facts = {"model": model.blueprint(), "statistics": None}
    survey = stage.survey(cast(Site, SimpleNamespace(facts=facts, mode="run")))
    assert survey.settled is not None
    assert survey.settled.modules == (f"stages.compress.{work}",)


def surveyed(model: Tiny, config: CompressConfig, **source: Any) -> tuple[Stage, int]:
    """A stage that knows its layers, and the memory that it says it takes."""
    stage = Compress(config)
    facts = {"model": model.blueprint(), "statistics": None, "source": SimpleNamespace(**source)}
    found = stage.survey(cast(Site, SimpleNamespace(facts=facts, mode="run")))
    assert found.settled is not None
    return found.settled, max(estimate.memory for estimate in found.estimates.values())


def test_two_layers_go_side_by_side_while_they_are_small_and_need_no_data(
    llama: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Numerics(device="cpu", threads=2)
    for scheme, modifiers, many in (("w4a16", (Rtn(),), 2), ("w4a16", (Gptq(),), 1)):
        config = CompressConfig(scheme=load(scheme), modifiers=modifiers, numerics=small)
        assert surveyed(llama, config, tensors=None)[0].beside == many
    monkeypatch.setattr("stages.compress.stage.LITTLE", 1000)
    config = CompressConfig(scheme=load("w4a16"), numerics=small)
    assert surveyed(llama, config, tensors=None)[0].beside == 1


def test_what_streams_takes_little_memory_however_large_the_layer() -> None:
    assert streaming_bytes(10**12) == streaming_bytes(10**9) < 10**9


def test_only_plain_files_of_bfloat16_are_known_to_stream(llama: Tiny) -> None:
    config = CompressConfig(scheme=load("fp8_dynamic"))
    specs = SafetensorsSource(find_weights(llama.path)).specs()
    wide = {name: replace(spec, dtype="F32") for name, spec in specs.items()}
    _, streams = surveyed(llama, config, tensors=specs, quantization=None)
    others = [
        surveyed(llama, config, tensors=tensors, quantization=quantization)[1]
        for tensors, quantization in ((None, None), (wide, None), (specs, {"quant_method": "fp8"}))
    ]
    assert all(other > streams for other in others)
