from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from pipeline.machine.device_memory import device_bytes, peak_device_bytes, reset_device_peak


class FakeCuda:
    """torch.cuda with two GPUs; a peak is at least what is allocated."""

    def __init__(self) -> None:
        self.allocated, self.peak = [10, 0], [70, 5]

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return len(self.allocated)

    def memory_allocated(self, index: int) -> int:
        return self.allocated[index]

    def max_memory_allocated(self, index: int) -> int:
        return self.peak[index]

    def reset_peak_memory_stats(self, index: int) -> None:
        self.peak[index] = self.allocated[index]


def test_memory_is_that_of_all_gpus_and_the_peak_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=FakeCuda()))
    assert (device_bytes(), peak_device_bytes()) == (10, 75)
    reset_device_peak()
    assert peak_device_bytes() == 10


@pytest.mark.parametrize(
    "torch",
    [
        None,
        SimpleNamespace(),
        SimpleNamespace(cuda=SimpleNamespace()),
        SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: False)),
    ],
    ids=["not imported", "being imported", "cuda being imported", "no GPU in use"],
)
def test_nothing_is_measured_where_no_gpu_is_in_use(
    torch: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)
    reset_device_peak()
    assert (device_bytes(), peak_device_bytes()) == (None, None)
