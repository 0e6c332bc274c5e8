"""Work is counted in kinds that are all measured, and that the shipped machines all have."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.scheduling.machine import MachineConfig
from stages.calibrate.statistics import speeds as calibrate
from stages.compress.layer import speeds as compress
from stages.compute import speeds as compute
from stages.compute import work

KINDS = {value for name, value in vars(work).items() if name.isupper() and isinstance(value, str)}
MACHINES = sorted(Path("conf/machine").glob("*.yaml"))


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.stem)
def test_a_shipped_machine_has_a_rate_for_every_kind_of_work(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["rates"].keys() == KINDS


def test_every_kind_of_work_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, names in (
        (compute, {"HIDDEN": 32, "INNER": 64, "HEADS": 2, "TOKENS": 8, "LEARNED": 64}),
        (compute, {"COPIED": 1 << 10}),
        (calibrate, {"COLUMNS": 64, "ROWS": 16}),
        (compress, {"ROWS": 8, "NARROW": 128, "WIDE": 256}),
    ):
        for name, value in names.items():
            monkeypatch.setattr(module, name, value)
    found: dict[str, float] = {}
    for module in (compute, calibrate, compress):
        found |= module.speeds("cpu", 1)
    assert found.keys() == KINDS
    assert MachineConfig(rates=found).rates == found  # all above zero
