"""Links and headings of the documentation. Its commands: tests/test_documented_commands.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "stages" / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?P<target>[^)#]+)[^)]*\)")


@pytest.mark.parametrize(
    "page", PAGES + sorted((ROOT / "stages/docs/extend").glob("*.md")), ids=str
)
def test_a_link_to_a_file_leads_to_one(page: Path) -> None:
    for match in LINK.finditer(page.read_text()):
        if "://" not in match["target"]:
            assert (page.parent / match["target"]).exists(), match["target"]


def test_the_newcomer_comes_first() -> None:
    headings = re.findall(r"^## (.*)$", PAGES[0].read_text(), re.MULTILINE)
    order = ["Two commands", "What you get", "Saying what you want", "Recipes"]
    order += ["Coming from llm-compressor", "Architecture", "Adding to it", "Measured"]
    assert [heading for heading in headings if heading in order] == order
