from __future__ import annotations

import pytest

from pipeline.errors import UserError
from pipeline.machine.devices import resolve_device, resolve_devices
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


def test_several_devices_are_named_as_torch_names_them() -> None:
    with fake_gpus(*[MODELS[0]] * 2):
        assert resolve_devices([0, "cuda:1"], "auto", must_exist=True) == ("cuda:0", "cuda:1")
        assert resolve_devices(["cuda"], "cuda", must_exist=True) == ("cuda:0",)
        assert resolve_devices(["cpu", "cpu"], "auto") == ("cpu", "cpu")


@pytest.mark.parametrize(
    ("devices", "device", "problem"),
    [
        ([], "auto", "name devices"),
        (["cpu", 0], "auto", "both CPU and GPU"),
        ([1, "cuda:1"], "auto", "a GPU twice"),
        (["cpu"], "cuda", "say device=cpu"),
        ([0, 1], "cuda:1", "say device=cuda"),
        ([0, 7], "auto", "there is no such GPU"),
        (["gpu"], "auto", "did you mean cuda"),
        ([0, 1], "auto", "of the models .*name GPUs of one model"),
    ],
)
def test_devices_that_do_not_go_together_are_refused(
    devices: list[object], device: str, problem: str
) -> None:
    models = MODELS if "models" in problem else [MODELS[0]] * 2
    with fake_gpus(*models), pytest.raises(UserError, match=rf"(?s){problem}"):
        resolve_devices(devices, device, must_exist=True)
