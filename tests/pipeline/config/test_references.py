from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.references import References, aliases
from pipeline.nested import leaves


def traced(raw: dict[str, Any]) -> References:
    trace = References(raw)
    trace.follow(("graph",))
    return trace


def covered(raw: dict[str, Any]) -> set[str]:
    trace = traced(raw)
    assert trace.problems == []
    return {".".join(path) for path, _ in leaves(raw) if trace.covers(path)}


def test_a_section_is_reached_with_all_of_it() -> None:
    raw = {"graph": {"a": "${data}"}, "data": {"x": 1, "y": [1, 2]}, "other": {"z": 1}}
    assert covered(raw) == {"data.x", "data.y.0", "data.y.1"}


def test_a_key_is_reached_alone() -> None:
    assert covered({"graph": ["${data.x}"], "data": {"x": 1, "y": 2}}) == {"data.x"}


def test_references_are_followed_from_section_to_section() -> None:
    raw = {
        "graph": {"a": "${one}"},
        "one": {"seed": "${seed}", "near": "${.seed}", "up": "${..two.x}"},
        "two": {"x": 1, "y": 2},
        "seed": 0,
    }
    assert covered(raw) == {"one.seed", "one.near", "one.up", "seed", "two.x"}


def test_a_path_may_lead_through_a_reference() -> None:
    raw = {"graph": {"a": "${alias.x}"}, "alias": "${data}", "data": {"x": 1, "y": 2}}
    assert covered(raw) == {"data.x"}


def test_an_inner_reference_chooses_the_path_of_the_outer() -> None:
    raw = {"graph": {"a": "${wiring.${pick}}"}, "pick": "${default}", "default": "one"}
    raw["wiring"] = {"one": "x", "two": "y"}
    assert covered(raw) == {"pick", "default", "wiring.one"}


def test_text_around_references_and_resolvers_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_PICK", "x")
    raw = {
        "graph": {"a": "see ${data.x}/${data.y}", "b": "${oc.select:late.k,1}"},
        "data": {"x": 1, "y": 2},
        "late": {"k": 1, "j": 2},
    }
    assert covered(raw) == {"data.x", "data.y", "late.k"}
    assert covered({"graph": {"a": "${data.${oc.env:TINY_PICK}}"}, "data": {"x": 1, "y": 2}}) == {
        "data.x"
    }


def test_a_circle_ends() -> None:
    assert covered({"graph": {"a": "${one}"}, "one": "${two}", "two": "${one}"}) == {"one", "two"}


def test_a_wrong_choice_is_told_as_the_choice() -> None:
    trace = traced(
        {"graph": {"a": "${wiring.${pick}}"}, "pick": "too", "wiring": {"one": 1, "two": 2}}
    )
    assert [str(problem) for problem in trace.problems] == [
        "pick is 'too'\n  did you mean two? choose one of one, two"
    ]


def test_a_reference_to_nothing_says_where_it_stands() -> None:
    trace = traced({"graph": {"a": "${data.sead}"}, "data": {"seed": 1}})
    assert [str(problem) for problem in trace.problems] == [
        "graph.a refers to ${data.sead}, which is not in this config\n"
        "  did you mean seed? choose one of seed"
    ]


def test_a_missing_value_is_told() -> None:
    trace = traced({"graph": {"a": "${path}"}, "path": "???"})
    assert [str(problem) for problem in trace.problems] == ["path is missing\n  give path=VALUE"]


def test_aliases_are_the_leaves_that_are_one_reference() -> None:
    params = {"data": "${dataset}", "both": "${a} ${b}", "deep": {"x": "${ a.b }"}, "n": 3}
    assert dict(aliases(params, ("p",))) == {"p.data": "dataset", "p.deep.x": "a.b"}
