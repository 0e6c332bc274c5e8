"""Freed memory goes back to the system when there is much of it."""

from __future__ import annotations

import pytest

from pipeline.runner import memory
from pipeline.runner.memory import Freed

MIB = 1 << 20


@pytest.mark.parametrize(
    ("resident", "returns"),
    [
        ([500, 500, 540, 560], 1),  # at the first node only
        ([500, 500, 570, 520], 2),
        ([500, 500, 400, 460, 470, 400], 2),  # 70 more than the least
        ([None, None, None, None], 2),  # where the system does not tell, at every node
    ],
)
def test_memory_is_returned_when_it_has_grown_by_64_mib(
    resident: list[int | None], returns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([None if n is None else n * MIB for n in resident])
    calls: list[str] = []
    monkeypatch.setattr(memory, "_own_bytes", lambda: next(told))
    monkeypatch.setattr(memory, "_glibc", lambda name, *arguments: calls.append(name))
    freed = Freed()
    with pytest.raises(StopIteration):
        while True:
            freed.give_back()
    assert calls == ["malloc_trim"] * returns
