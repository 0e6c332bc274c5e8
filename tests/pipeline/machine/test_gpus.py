from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.machine import gpus
from pipeline.machine.gpus import Gpu, driver_version, gpu_of, torch_cuda
from tests.pipeline.machine.fake_driver import MODELS, fake_gpus


def test_the_driver_tells_model_capability_and_memory_by_number() -> None:
    with fake_gpus(*MODELS):
        one, two = gpus.gpus()
        assert one == Gpu(index=0, name="NVIDIA H200", capability=(9, 0), total_bytes=150 * 10**9)
        assert (two.index, two.name, two.architecture) == (1, "NVIDIA A100", "sm_80")
        assert (gpu_of("cuda"), gpu_of("cuda:0"), gpu_of("cuda:1")) == (one, one, two)
        assert (gpu_of("cuda:2"), gpu_of("cpu")) == (None, None)
        assert driver_version().endswith("CUDA 13.0")


def test_there_are_none_without_a_driver() -> None:
    with fake_gpus():
        assert gpus.gpus() == ()
        assert gpu_of("cuda") is None
        assert driver_version() == ""


def test_a_library_that_is_not_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.machine.gpus._LIBRARY", "libnothing.so.9")
    assert gpus._driver.__wrapped__() is None


@pytest.mark.parametrize(
    ("line", "version"),
    [("cuda: Optional[str] = '13.0'", "13.0"), ("cuda: Optional[str] = None", None)],
)
def test_the_cuda_of_torch_is_read_from_its_file(
    line: str, version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise RuntimeError('imported')\n")
    text = f"__all__ = ['cuda']\n__version__ = '2.11.0'\n{line}\nhip = '6.0'\n"
    (tmp_path / "torch/version.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [n for n in sys.modules if n.split(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    gpus._torch_version.cache_clear()
    assert torch_cuda() == version
    gpus._torch_version.cache_clear()
