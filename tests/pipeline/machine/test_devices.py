from __future__ import annotations

import pytest

from pipeline.errors import UserError
from pipeline.machine.devices import resolve_device
from tests.pipeline.machine.fake_driver import MODELS, fake_gpus


def test_auto_takes_a_gpu_that_torch_can_use() -> None:
    with fake_gpus(*MODELS):
        assert resolve_device("auto") == "cuda"
    with fake_gpus(*MODELS, cuda=None):
        assert resolve_device("auto") == "cpu"
    with fake_gpus():
        assert resolve_device("auto") == "cpu"


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:1"])
def test_a_device_that_is_there_stays_what_it_is(device: str) -> None:
    with fake_gpus(*MODELS):
        assert resolve_device(device, must_exist=True) == device


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_a_plan_may_be_for_another_machine(device: str) -> None:
    with fake_gpus():
        assert resolve_device(device) == device


def refused(device: str) -> str:
    with pytest.raises(UserError) as caught:
        resolve_device(device, must_exist=True)
    return str(caught.value)


def test_a_gpu_that_is_not_there_is_refused_with_what_there_is() -> None:
    with fake_gpus(*MODELS):
        told = refused("cuda:2")
    assert "device is 'cuda:2', but there is no such GPU" in told
    assert "cuda:0 (NVIDIA H200), cuda:1 (NVIDIA A100)" in told
    assert "choose one of cpu, cuda:0, cuda:1" in told


def test_a_torch_without_cuda_is_told_from_a_machine_without_gpu() -> None:
    with fake_gpus(*MODELS, cuda=None):
        told = refused("cuda")
    assert "torch is built without CUDA; the driver finds cuda:0 (NVIDIA H200)" in told
    assert "say device=cpu;" in told
    with fake_gpus():
        assert "the NVIDIA driver finds no GPU here" in refused("cuda:0")


@pytest.mark.parametrize("device", ["gpu", "cuda1", "cuda:", "cuda:x", "cuda:-1", "cpu:0"])
def test_other_names_are_refused_whatever_there_is(device: str) -> None:
    with pytest.raises(UserError, match=f"device is '{device}'"):
        resolve_device(device)
