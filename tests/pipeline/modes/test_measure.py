"""`mode=measure`: what stages measure is kept, and a plan takes it for its schedule."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.modes import measure as mode
from pipeline.modes.measure import measure
from pipeline.modes.plan import machine_of
from pipeline.registry import Registry
from pipeline.store import Store
from tests.pipeline.tiny import FILES, loaded, write_files


def test_what_stages_measure_is_kept_for_the_schedules_of_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[tuple[str, int]] = []

    def speeds(device: str, threads: int) -> dict[str, float]:
        given.append((device, threads))
        return {"solve": 2.5e9, "columns": float("inf")}

    registry = Registry()
    registry.register("stage", "fast", type("Fast", (), {"speeds": "measured_here"}))
    registry.register("stage", "also", type("Also", (), {"speeds": "measured_here"}))
    registry.register("stage", "none", type("None_", (), {"speeds": ""}))
    monkeypatch.setitem(sys.modules, "measured_here", SimpleNamespace(speeds=speeds))
    monkeypatch.setattr(mode, "Registry", SimpleNamespace(load=lambda: registry))
    monkeypatch.setattr(mode, "read_speed", lambda folder: 1e9)
    folder = write_files(tmp_path / "conf", FILES)
    words = (f"store.dir={tmp_path / 'store'}", "device=cpu", "runner.threads=3")
    config = loaded(folder, "mode=measure", *words)
    assert measure(config, tmp_path) == 0
    assert given == [("cpu", 3)]  # once, although two stages name it
    assert "solve" in capsys.readouterr().out
    found = machine_of(config, Store(config.store))
    assert found.rates == {"solve": 2.5e9, "columns": float("inf")} and found.read == 1e9
    other = loaded(folder, "mode=measure", *words[:2], "runner.threads=2")
    assert machine_of(other, Store(other.store)).rates == {}  # not measured with so many
