"""Finished checkpoints of straight schemes have the bytes of earlier versions, on every machine.

Where other bytes are meant, and the stage's version says so, write the digests anew:

    PRESSWORK_WRITE_KEYS=1 python -m pytest -p no:xdist -m "slow or not slow" \\
        tests/frozen/test_checkpoints.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frozen.checkpoints import StraightJob, digests_of
from tests.frozen.models import FAMILIES, write_model
from tests.frozen.stored import differing, stored

FILE = Path(__file__).with_name("checkpoints.json")
GRAPHS = ("data_free", "calibrated")
QUICK = ("fp8_dynamic", "w4a16_g64", "w8a8", "nvfp4a16")
SLOW = ("w4a16_asym", "w8a16", "w3a16", "fp8_block", "mxfp4", "mxfp8", "mixed")
EVERY = (*QUICK, *(pytest.param(scheme, marks=pytest.mark.slow) for scheme in SLOW))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all models."""
    made = tmp_path_factory.mktemp("checkpoints")
    for family in FAMILIES:
        write_model(made / family, family)
    return made


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scheme", EVERY)
def test_checkpoints_are_as_they_were(scheme: str, family: str, graph: str, folder: Path) -> None:
    job = StraightJob(folder=folder, model=folder / family, text=folder, graph=graph)
    name = f"{graph}-{family}-{scheme}"
    assert job.run(name, f"scheme={scheme}")["verify"]["ok"] is True
    found = digests_of(folder / name / "checkpoint")
    assert differing(stored(FILE, f"{graph} {scheme} {family}", found), found) == []
