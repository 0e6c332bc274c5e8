"""Numbers of the page on choosing a scheme: those of the pages that they come from."""

from __future__ import annotations

import re
from statistics import median

import pytest

from tests.stages.docs.pages import DOCS

PAGE = (DOCS / "choosing.md").read_text(encoding="utf-8")
README = (DOCS.parents[1] / "README.md").read_text(encoding="utf-8")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows(text: str, header: str) -> list[list[str]]:
    """The rows of the table whose first line begins with `header`."""
    table = text[text.index(f"\n{header}") + 1 :].partition("\n\n")[0]
    return [cells(line) for line in table.splitlines()[2:]]


def test_errors_over_architectures_are_the_medians_of_the_list_of_models() -> None:
    models = rows((DOCS / "models.md").read_text(encoding="utf-8"), "| model | experts")
    for scheme, _, error, loads in rows(PAGE, "| scheme | by |"):
        column = ["fp8_dynamic", "w4a16", "nvfp4", "w8a8"].index(scheme.strip("`")) + 2
        found = [re.match(r"([\d.]+) / (\S+)", row[column]) for row in models]
        judged = [match for match in found if match]
        assert error == f"{median(float(match[1]) for match in judged):.3f}"
        loaded = sum(match[2] != "-" for match in judged)
        assert loads == f"{loaded} of {len(judged)}"


def test_what_vllm_runs_on_a_cpu_is_what_the_table_of_loaders_says() -> None:
    loaders = rows((DOCS / "loaders.md").read_text(encoding="utf-8"), "| scheme | compressed-")
    runs = {row[0].strip("`") for row in loaders if re.fullmatch(r"[\d.]+", row[3])}
    named = [set(re.findall(r"`(\w+)`", row[1])) for row in rows(PAGE, "| result | schemes")]
    assert named[0] | named[1] == runs
    assert not named[2] & runs


@pytest.mark.parametrize("row", rows(PAGE, "| scheme | bits per weight"), ids=lambda row: row[0])
def test_quality_at_four_and_a_half_bits_is_what_was_measured(row: list[str]) -> None:
    for number in row[2:]:
        assert number in README


@pytest.mark.parametrize(
    "row",
    [row for row in rows(PAGE, "| job | measured") if row[2].startswith("README")],
    ids=lambda row: row[0],
)
def test_times_and_memory_are_what_was_measured(row: list[str]) -> None:
    text = " ".join(README.split())
    for number in re.findall(r"\d+\.\d+", row[1]):
        assert number in text
