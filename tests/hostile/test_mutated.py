"""Thousands of changed files of strangers: each is read, or refused with one clear error.

    python -m pytest -p no:xdist -m slow -s tests/hostile/test_mutated.py

prints the counts. One input again: `next(outcomes(kind, range(SEED, SEED + 1), folder))`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from tests.hostile.forked import FINE, Outcome, outcomes, summary
from tests.hostile.readers import Kind, kinds

FEW = 1


@pytest.fixture(scope="module")
def every(tiny_llama: Path, tiny_checkpoint: Path) -> list[Kind]:
    return kinds(tiny_llama, tiny_checkpoint)


def read_all(every: list[Kind], tmp_path: Path, *, many: bool) -> list[Outcome]:
    found = []
    for number, kind in enumerate(every):
        seeds = range(kind.many if many else FEW)
        began = time.perf_counter()
        found += outcomes(kind, seeds, tmp_path / str(number))
        if many:
            row = summary([one for one in found if one.kind == kind.name])
            sys.stderr.write(f"{kind.name}: {row}, {time.perf_counter() - began:.0f} s\n")
    return found


@pytest.mark.slow
def test_sound_files_are_read(every: list[Kind], tmp_path: Path) -> None:
    for number, kind in enumerate(every):
        folder = tmp_path / str(number)
        folder.mkdir()
        kind.sound(folder)
        kind.read(folder)


def test_a_few_changed_files_are_read_or_refused(every: list[Kind], tmp_path: Path) -> None:
    found = read_all(every, tmp_path, many=False)
    assert len(found) == FEW * len(every)
    assert [one for one in found if one.what not in FINE] == []


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_ten_thousand_changed_files_are_read_or_refused(every: list[Kind], tmp_path: Path) -> None:
    assert sum(kind.many for kind in every) >= 10_000
    found = read_all(every, tmp_path, many=True)
    if (place := os.environ.get("PRESSWORK_HOSTILE")) is not None:
        Path(place).write_text(
            json.dumps([[o.kind, o.seed, o.what, o.text] for o in found if o.what not in FINE])
        )
    sys.stderr.write(json.dumps(summary(found), indent=1) + "\n")
    assert [one for one in found if one.what not in FINE] == []
