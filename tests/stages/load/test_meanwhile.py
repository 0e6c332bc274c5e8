"""Work beside a long look: done at the end, and only where the look is long."""

from __future__ import annotations

import time

import pytest

from stages.load import meanwhile


def test_a_long_look_has_the_work_done_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meanwhile, "PATIENCE", 0.0)
    done: list[str] = []

    def work() -> None:
        time.sleep(0.05)
        done.append("work")

    with meanwhile.meanwhile(work):
        time.sleep(0.02)
    assert done == ["work"]


def test_a_short_look_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meanwhile, "PATIENCE", 60.0)
    done: list[str] = []
    with meanwhile.meanwhile(lambda: done.append("work")):
        pass
    assert done == []


def test_an_error_of_the_look_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meanwhile, "PATIENCE", 60.0)
    with pytest.raises(ValueError, match="broken"), meanwhile.meanwhile(lambda: None):
        raise ValueError("broken")
