from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from pipeline.errors import UserError
from pipeline.registry import Registry, choices, nearest


def entry(name: str, value: str, group: str = "presswork.datasets") -> EntryPoint:
    return EntryPoint(name=name, value=value, group=group)


def test_an_entry_point_is_imported_when_it_is_asked_for() -> None:
    registry = Registry()
    registry.add(entry("ordered", "collections:OrderedDict"))
    registry.add(entry("broken", "no_such_module_at_all:Thing"))
    assert registry.kinds("dataset") == ("broken", "ordered")
    assert registry.get("dataset", "ordered").__name__ == "OrderedDict"
    assert registry.get("dataset", "ordered").__name__ == "OrderedDict"


def test_an_unknown_kind_is_told_with_the_nearest() -> None:
    registry = Registry({"modifier": {"gptq": dict, "rtn": dict}})
    with pytest.raises(UserError, match=r"no modifier of kind 'gtpq'\n.*did you mean gptq\?"):
        registry.get("modifier", "gtpq")


def test_an_unknown_group_says_that_there_is_nothing() -> None:
    with pytest.raises(UserError, match="there is none to choose from"):
        Registry().get("solver", "x")


@pytest.mark.parametrize("value", ["no_such_module_at_all:Thing", "collections:NoSuchClass"])
def test_an_entry_that_cannot_be_imported_is_told(value: str) -> None:
    registry = Registry()
    registry.add(entry("broken", value))
    with pytest.raises(UserError, match="cannot be imported"):
        registry.get("dataset", "broken")


def test_two_packages_with_one_kind_are_refused() -> None:
    registry = Registry()
    registry.add(entry("words", "one:Words"))
    registry.add(entry("words", "one:Words"))
    with pytest.raises(UserError, match="one:Words and two:Words"):
        registry.add(entry("words", "two:Words"))


def test_every_entry_of_this_project_can_be_imported() -> None:
    registry = Registry.load()
    assert {"stage", "model", "dataset", "modifier"} <= registry.entries.keys()
    for group in list(registry.entries):
        for kind in registry.kinds(group):
            assert registry.get(group, kind) is registry.get(group, kind)


def test_stages_are_registered_under_their_own_kind() -> None:
    registry = Registry.load()
    for kind in registry.kinds("stage"):
        assert registry.get("stage", kind).kind == kind


def test_did_you_mean_is_silent_when_nothing_is_near() -> None:
    assert nearest("zzz", ["model", "dataset"]) == ""
    assert choices("zzz", ["b", "a"]) == "choose one of a, b"
