"""Every command that the documentation shows can be composed, and is strictly right."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.registry import Registry
from tests.pipeline.tiny import composed

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "stages" / "docs").glob("*.md"))]
COMMAND = re.compile(r"^python -m pipeline (?P<words>.+)$", re.MULTILINE)
LINK = re.compile(r"\]\((?P<target>[^)#]+)[^)]*\)")


def commands() -> list[str]:
    found = [m["words"] for page in PAGES for m in COMMAND.finditer(page.read_text())]
    # the words of the table for those who come from llm-compressor
    rows = re.findall(
        r"^\| `[^\n]*\| `(?P<words>[\w.=\[\], +]+)`[^\n]*\|$", PAGES[0].read_text(), re.M
    )
    return list(dict.fromkeys([*found, *(row for row in rows if "=" in row)]))


def first_of_sweep(word: str) -> str:
    """`key=a,b` -> `key=a`, where the commas are no list's; `choice(a,b)` likewise."""
    key, _, value = word.partition("=")
    value = value.removeprefix("choice(").removesuffix(")")
    return word if value.startswith(("[", "{", "interval")) else f"{key}={value.partition(',')[0]}"


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_a_command_is_strictly_right(command: str) -> None:
    words = [first_of_sweep(w) for w in shlex.split(command) if w not in ("-m", "...")]
    given = [w for w in words if not w.startswith(("recipe=", "hydra")) and "[...]" not in w]
    cfg = composed(own_configs(), *given, name="config")
    load_config(cfg, Registry.load(), overrides=given)


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
