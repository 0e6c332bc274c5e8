"""The versions that CI runs are both ends of what pyproject.toml admits."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
RANGED = ("transformers", "compressed-tensors")
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)$", re.MULTILINE)


def pins(name: str) -> dict[str, Version]:
    text = (ROOT / "pipeline" / name).read_text()
    return {found[1]: Version(found[2]) for found in PIN.finditer(text)}


OLDEST, NEWEST = pins("constraints.txt"), pins("constraints-newest.txt")


def test_the_two_files_differ_in_the_ranged_packages_alone() -> None:
    assert OLDEST.keys() == NEWEST.keys()
    assert {name for name, version in OLDEST.items() if NEWEST[name] != version} == set(RANGED)


@pytest.mark.parametrize("name", RANGED)
def test_a_range_admits_nothing_below_the_oldest_or_of_a_later_release(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (found,) = [r for r in map(Requirement, project["dependencies"]) if r.name == name]
    oldest, newest = OLDEST[name], NEWEST[name]
    assert oldest in found.specifier and newest in found.specifier
    assert f"{oldest.major}.{oldest.minor - 1}.99" not in found.specifier
    assert f"{newest.major}.{newest.minor + 1}.0" not in found.specifier


def test_ci_runs_the_newest_as_well() -> None:
    assert ".ci/newest" in (ROOT / ".ci" / "run").read_text()
    assert "-c pipeline/constraints-newest.txt" in (ROOT / ".ci" / "newest").read_text()
