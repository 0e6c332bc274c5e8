"""A node that runs out of memory is one error with a remedy, and nothing that was done is lost."""

from __future__ import annotations

import errno
import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.errors import StageFailed, UserError
from pipeline.machine.out_of_memory import exhausted
from pipeline.stage import Task
from tests.pipeline import sites as fake
from tests.pipeline.runner.chains import calls, passed, store_at, word


def too_large_for_the_host() -> None:
    torch.empty(1 << 46, dtype=torch.uint8)


def too_large_for_python() -> None:
    raise MemoryError


def too_large_for_the_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has\nmore")


def too_large_for_a_library() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def told_otherwise() -> None:
    try:
        too_large_for_the_gpu()
    except RuntimeError as error:
        raise UserError("the tensors do not fit their format") from error


CASES = {
    too_large_for_the_host: "the memory of the machine ran out: .*DefaultCPUAllocator",
    too_large_for_python: "the memory of the machine ran out: MemoryError",
    too_large_for_the_gpu: "the memory of the GPU ran out: CUDA out of memory. Tried to",
    too_large_for_a_library: "the memory of the GPU ran out: .*CUBLAS",
    told_otherwise: "the memory of the GPU ran out: the tensors do not fit",
}


@pytest.mark.parametrize(
    ("failing", "told"), CASES.items(), ids=lambda c: getattr(c, "__name__", "")
)
def test_it_is_one_error_with_a_remedy_and_the_next_run_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: Callable[[], None],
    told: str,
) -> None:
    real, left = fake.Solve.run, list[weakref.ref[torch.Tensor]]()

    def run(self: fake.Solve, task: Task) -> None:
        if task.index == 2:
            large = torch.ones(10)
            left.append(weakref.ref(large))
            failing()
        real(self, task)

    monkeypatch.setattr(fake.Solve, "run", run)
    monkeypatch.setattr(fake.Solve, "lighter", "lower solve.size")
    store = store_at(tmp_path)
    fake.CALLS.clear()
    with pytest.raises(StageFailed, match=rf"(?s)solve\[2\]: {told}") as caught:
        word(store)
    assert "lower solve.size; or use a" in caught.value.remedy
    assert "more" not in caught.value.what.splitlines()[0].split("has")[-1]
    gc.collect()
    assert left[0]() is None  # what it held is let go
    assert passed(store) == ["hand[1]"]
    monkeypatch.setattr(fake.Solve, "run", real)
    fake.CALLS.clear()
    assert word(store) == "abcd"
    assert calls("solve") == ["solve[2]", "solve[3]"]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes differ"),
        OSError(errno.ENOSPC, "full"),
        UserError("no"),
        ValueError("x"),
    ],
)
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert exhausted(error) is None


def test_the_system_says_it_as_well() -> None:
    assert exhausted(OSError(errno.ENOMEM, "Cannot allocate memory")) == "machine"
