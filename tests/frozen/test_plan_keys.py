"""Keys of all nodes are those of earlier versions: what was built before is found again.

A key changes with a stage's version, with a field of any dataclass that reaches it, and with the
graph. Where that is meant (a stage gives another result and its version was raised), write anew:

    PRESSWORK_WRITE_KEYS=1 python -m pytest -p no:xdist tests/frozen/test_plan_keys.py

and say in the commit which stages changed. Versions of installed libraries are masked.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.frozen.cases import WHOLE, Case, cases_of, plan_of
from tests.frozen.models import FAMILIES, write_model, write_text
from tests.frozen.plans import CONFIGS, Keys
from tests.frozen.stored import differing, stored

FILE = Path(__file__).with_name("keys.json")
DIGITS = 16


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all models and text.txt."""
    folder = tmp_path_factory.mktemp("frozen")
    write_text(folder / "text.txt")
    for family in FAMILIES:
        write_model(folder / family, family)
    return folder


@pytest.fixture(autouse=True)
def one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPU and processor are part of a key: the stored ones were made without the one."""
    monkeypatch.setattr("pipeline.machine.gpus.gpus", tuple)
    monkeypatch.setattr("pipeline.machine.processor.processor", lambda: "of the frozen keys")


def digest(keys: Keys) -> str:
    """Of the names of all nodes and outputs with their keys."""
    return hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()[:DIGITS]


def flat(keys: Keys) -> dict[str, str]:
    return {f"{node}.{o}": key[:DIGITS] for node, found in keys.items() for o, key in found.items()}


def test_every_graph_has_frozen_keys() -> None:
    graphs = {path.stem for path in (CONFIGS / "graph").glob("*.yaml")}
    assert graphs == WHOLE.keys()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("graph", WHOLE)
def test_plan_keys_are_as_they_were(graph: str, family: str, models: Path) -> None:
    found = {
        name: plan_of(case, models / family, models / "text.txt")
        for name, case in cases_of(graph, family).items()
    }
    cases = {name: digest(keys) for name, keys in found.items()}
    assert len(set(cases.values())) == len(cases), "two cases are the same"
    whole = {name: flat(found[name]) for name in WHOLE[graph]}
    before = stored(FILE, f"{graph} {family}", {"cases": cases, "whole": whole})
    # the first is where the change is: all that it feeds has another key by that
    changed = {name: differing(before["whole"][name], keys) for name, keys in whole.items()}
    assert {name: nodes for name, nodes in changed.items() if nodes} == {}
    assert differing(before["cases"], cases) == []


SUMS = ("calibrate", "cache", "propagate", "gradient", "sensitivity", "hidden", "eval", "generate")
"""What kinds of nodes sum always; compress does where a solver or an observer searches."""


@pytest.mark.parametrize(
    ("case", "compress"),
    [
        (Case(base="evaluated", scheme="w4a16_g64"), False),
        (Case(base="data_free", scheme="w4a16_g64", values={"modifier.rtn.observer": "mse"}), True),
    ],
    ids=["rounding", "searching"],
)
def test_keys_differ_by_processor_where_something_is_summed_and_nowhere_else(
    case: Case, compress: bool, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("Intel 1-2", "Amd 3-4"):
        monkeypatch.setattr("pipeline.machine.processor.processor", lambda name=name: name)
        found.append(plan_of(case, models / "llama", models / "text.txt"))
    kinds = {name.partition("[")[0] for name in found[0]}
    changed = {name.partition("[")[0] for name in found[0] if found[0][name] != found[1][name]}
    made = {"compress", "save", "verify"}
    assert changed & made == (made if compress else set())
    assert not changed & {"load", "patch", "pairs", "prove", "tokens"}
    assert changed >= kinds & set(SUMS)
