"""Every scheme and modifier on one layer: no devices are mixed, and a GPU's codes are a CPU's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stages.compress.config import CompressConfig
from stages.compress.modifiers.gptq import Gptq
from stages.compress.modifiers.rtn import Rtn
from stages.compress.modifiers.smoothquant import SmoothQuant
from stages.compute.numerics import Numerics
from tests.devices.elsewhere import mixing_forbidden
from tests.stages.compress.layers import compress, info
from tests.stages.formats.fakes import FakeArtifact
from tests.stages.model.tiny import Tiny, tiny
from tests.stages.schemes.presets import QUANTIZED, load


def llama(folder: Path, width: int) -> Tiny:
    shape = {"hidden_size": width, "intermediate_size": width, "head_dim": width // 4}
    return tiny("llama", folder, dtype=torch.bfloat16, num_hidden_layers=1, **shape)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return llama(tmp_path_factory.mktemp("model"), 128)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Too narrow for groups of 128."""
    return llama(tmp_path_factory.mktemp("small"), 64)


def on(device: str, scheme: str, folder: Path, model: Tiny, *modifiers: Any) -> FakeArtifact:
    numerics = Numerics(device=device)
    config = CompressConfig(scheme=load(scheme), modifiers=modifiers, numerics=numerics)
    return compress(model, config, folder / device, layers=[0]).artifacts[0]


def both(
    scheme: str, folder: Path, model: Tiny, *modifiers: Any
) -> tuple[FakeArtifact, FakeArtifact]:
    here = on("cpu", scheme, folder, model, *modifiers)
    with mixing_forbidden():
        there = on("cuda", scheme, folder, model, *modifiers)
    return here, there


SEARCHED = ("w4a16_asym", "fp8_block", "nvfp4", "mxfp8")
"""Schemes whose scales are searched for in ways of their own."""


@pytest.mark.parametrize(
    ("scheme", "observer"),
    [(scheme, "minmax") for scheme in (*QUANTIZED, "mixed")]
    + [(scheme, "mse") for scheme in SEARCHED],
)
def test_rounding_gives_the_bytes_of_a_cpu(
    tmp_path: Path, model: Tiny, scheme: str, observer: str
) -> None:
    here, there = both(scheme, tmp_path, model, Rtn(observer=observer))
    for name in ("shard.safetensors", "checksum.safetensors"):
        ours, theirs = load_file(here.path / name), load_file(there.path / name)
        assert ours.keys() == theirs.keys()
        for part, tensor in ours.items():
            assert tensor.dtype == theirs[part].dtype
            one, other = (t.reshape(-1).view(torch.uint8) for t in (tensor, theirs[part]))
            assert torch.equal(one, other), part


SMOOTHED = (SmoothQuant(), Gptq(observer="mse"))
SOLVED: dict[str, tuple[Any, ...]] = {
    "w4a16_g64": (Gptq(),),
    "w4a16_asym": (Gptq(observer="conditional"),),
    "nvfp4": (Gptq(),),
    "mxfp8": (Gptq(),),
    "w8a8": SMOOTHED,
    "fp8": SMOOTHED,
    "fp8_block": SMOOTHED,
    "mxfp4": SMOOTHED,
}


@pytest.mark.parametrize("scheme", SOLVED)
def test_solving_errs_no_more_than_on_a_cpu(
    tmp_path: Path, model: Tiny, small: Tiny, scheme: str
) -> None:
    fits = model if scheme in ("w4a16_asym", "fp8_block") else small
    here, there = both(scheme, tmp_path, fits, *SOLVED[scheme])
    for name, module in info(here)["modules"].items():
        other = info(there)["modules"][name]
        assert other["relative_error"] == pytest.approx(module["relative_error"], rel=0.02)
        assert other["bits"] == module["bits"]


@pytest.mark.parametrize("scheme", ["w4a16_asym", "fp8_block", "nvfp4"])
def test_blocks_of_rows_bound_the_memory_and_change_nothing(
    tmp_path: Path, model: Tiny, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.formats.row_blocks.ELSEWHERE", 32 * 128)
    monkeypatch.setattr("stages.compress.solvers.rtn.DEVICE_ELEMENTS", 128 * 128 - 1)
    monkeypatch.setattr("stages.formats.code_checksum.AT_ONCE", 7 * 128)
    test_rounding_gives_the_bytes_of_a_cpu(tmp_path, model, scheme, "minmax")
