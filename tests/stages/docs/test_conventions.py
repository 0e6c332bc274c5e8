"""The table of conventions names tests and scripts that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.stages.docs.pages import DOCS

ROOT = Path(__file__).resolve().parents[3]
TABLE = (DOCS / "conventions.md").read_text(encoding="utf-8").partition("\n## ")[0]
ROWS = [
    line.strip("|").split("|")
    for line in TABLE.splitlines()
    if line.startswith("| ") and not line.startswith(("| writer", "| ---"))
]
SHOWN = [re.findall(r"`((?:tests|findings)/[^`]+)`", row[-1]) for row in ROWS]


def test_every_row_says_who_what_and_what_is_done() -> None:
    assert len(ROWS) > 15
    assert all(len(row) == 4 and all(cell.strip() for cell in row) for row in ROWS)
    assert all(SHOWN)


@pytest.mark.parametrize("shown", sorted({each for row in SHOWN for each in row}))
def test_what_shows_it_is_there(shown: str) -> None:
    path, _, name = shown.partition("::")
    text = (ROOT / path).read_text(encoding="utf-8")
    assert not name or f"def {name}(" in text
