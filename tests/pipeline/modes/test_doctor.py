"""`mode=doctor` on a machine with GPUs, and on one without."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.modes.doctor import PACKAGES, doctor, verdict
from tests.pipeline.machine.fake_driver import MODELS, fake_gpus
from tests.pipeline.tiny import FILES, loaded, write_files

Told = Callable[[], list[str]]


@pytest.fixture
def told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Told:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("COLUMNS", "200")
    folder = write_files(tmp_path / "conf", FILES)

    def call() -> list[str]:
        doctor(loaded(folder, "mode=doctor", f"store.dir={tmp_path / 'store'}"), tmp_path)
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    return call


def test_every_gpu_is_told_with_its_architecture_and_memory(told: Told) -> None:
    with fake_gpus(*MODELS):
        lines = told()
    assert "cuda:0 NVIDIA H200, sm_90, 150.0 GB" in lines
    assert "cuda:1 NVIDIA A100, sm_80, 85.0 GB" in lines
    assert any(line.startswith("NVIDIA driver ") and "CUDA 13.0" in line for line in lines)
    assert "torch's CUDA 13.0" in lines
    assert any(line.startswith("triton ") for line in lines)
    assert "cuda none that torch can use" not in lines


def test_a_torch_for_cpus_beside_a_gpu_is_told(told: Told) -> None:
    with fake_gpus(*MODELS, cuda=None):
        lines = told()
    assert "torch's CUDA none: this torch was built for CPUs and uses no GPU" in lines
    assert "cuda none that torch can use" in lines


def test_a_machine_without_gpus_says_so(told: Told) -> None:
    with fake_gpus():
        lines = told()
    assert "cuda none that torch can use" in lines
    assert not any(line.startswith(("NVIDIA driver", "triton ")) for line in lines)


def test_the_verdict_says_what_lacks() -> None:
    there = dict.fromkeys(PACKAGES, "1.0") | {"store": "/s, writable, 9 GB free"}
    assert verdict(there, "cpu") == "Ready: runs compute on cpu."
    cut = verdict(there | {"hub": "https://x cannot be reached (no)"}, "cuda")
    assert cut.startswith("Ready: runs compute on cuda. But the hub is not reached")
    none = verdict(there | {"torch's CUDA": "none: this torch"}, "cpu")
    assert "there is a GPU, but this torch is built for CPUs" in none
    lacking = there | {"torch": "not installed", "store": "/s, read-only, 9 GB free"}
    told = verdict(lacking, "cpu")
    assert told.startswith("Not ready: torch is not installed; the store cannot be written")


def test_workers_of_this_machine_and_a_missing_ray_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setitem(sys.modules, "ray", None)
    folder = write_files(tmp_path / "conf", FILES)
    words = ("mode=doctor", f"store.dir={tmp_path / 'store'}", "runner.workers=null")
    doctor(loaded(folder, *words, "+runner.devices=[cpu,cpu]"), tmp_path)
    assert "a process for each of cpu, cpu" in capsys.readouterr().out
    doctor(loaded(folder, *words, "runner.kind=ray"), tmp_path)
    assert "runner=ray needs Ray, which is not installed" in capsys.readouterr().out
