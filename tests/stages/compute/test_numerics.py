from __future__ import annotations

import pytest

from pipeline.errors import UserError
from pipeline.key import canonical, digest
from stages.compute.numerics import Numerics, summed
from tests.pipeline.machine.fake_driver import MODELS, fake_gpus

H200, A100 = MODELS


def keyed(device: str) -> object:
    return canonical(Numerics(device=device, threads=2))


def test_the_key_of_a_cpu_holds_its_kind_only() -> None:
    assert keyed("cpu") == {"device": "cpu", "threads": 2}
    with fake_gpus(H200):
        assert keyed("cpu") == {"device": "cpu", "threads": 2}


def test_the_key_of_what_sums_holds_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Intel 1-2 avx2", "Amd 3-4 avx2"):
        monkeypatch.setattr("pipeline.machine.processor.processor", lambda name=name: name)
        found = summed(Numerics(device="cpu", threads=2))
        assert found == {"device": f"cpu, {name}", "threads": 2}
        with fake_gpus(H200):
            assert summed(Numerics(device="cuda", threads=2)) == keyed("cuda")


def test_which_of_equal_gpus_computes_is_no_part_of_the_key() -> None:
    with fake_gpus(H200, H200):
        assert keyed("cuda") == keyed("cuda:0") == keyed("cuda:1")
        assert keyed("cuda") == {"device": "cuda, NVIDIA H200, sm_90", "threads": 2}


def test_model_and_capability_of_a_gpu_are_part_of_the_key() -> None:
    found = set()
    for other in (H200, A100, ("NVIDIA H200", (10, 0), 1)):
        with fake_gpus(other):
            found.add(digest(keyed("cuda")))
    assert len(found) == 3
    with fake_gpus(H200, A100):
        assert digest(keyed("cuda:1")) in found


def test_what_makes_a_gpu_multiply_otherwise_is_part_of_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with fake_gpus(H200):
        stated = "cuda, NVIDIA H200, sm_90, NVIDIA_TF32_OVERRIDE=1"
        assert keyed("cuda") == {"device": stated, "threads": 2}
        assert keyed("cpu") == {"device": "cpu", "threads": 2}


def test_memory_of_a_gpu_is_no_part_of_the_key() -> None:
    with fake_gpus(H200):
        one = keyed("cuda")
    with fake_gpus((*H200[:2], 1)):
        assert keyed("cuda") == one


def test_a_gpu_that_is_not_known_is_only_its_kind() -> None:
    with fake_gpus():
        assert keyed("cuda:3") == {"device": "cuda", "threads": 2}


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cpu:0", "mps"])
def test_other_devices_are_refused(device: str) -> None:
    with pytest.raises(UserError, match=f"device is '{device}'"):
        Numerics(device=device)


def test_to_compute_on_a_gpu_that_is_not_here_is_an_error_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with fake_gpus(), pytest.raises(UserError, match="the NVIDIA driver finds no GPU here"):
        Numerics(device="cuda:1").apply()


def test_kernels_of_the_thread_go_to_the_gpu_that_was_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)
    for device in ("cuda", "cuda:1", "cpu"):
        Numerics(device=device).apply()
    assert chosen == [0, 1]
