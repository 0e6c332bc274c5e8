"""Modules that stages name as text: they exist, and what does the work has a `run`."""

from __future__ import annotations

from importlib import import_module

import pytest

from pipeline.registry import Registry
from pipeline.stage import Stage
from tests.test_semantics import GRAPHS, sites

CHOICES = {
    **GRAPHS,
    "codes": ("graph=data_free", "eval=none", "modifier=rtn", "verify.unpack=codes"),
    "unpacked": ("graph=data_free", "eval=none", "modifier=rtn", "verify.unpack=all"),
    "states": ("eval=standard", "kv_cache=fp8", "modifier=gptq"),
    "tasks": ("eval=tasks",),
    "push": ("eval=standard", "push=hub", "push.repo=org/name"),
}
"""Jobs that together have every kind of stage, with each of the modules it may name."""


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    return [stage for words in CHOICES.values() for stage in sites(*words).values()]


def test_every_kind_is_looked_at(stages: list[Stage]) -> None:
    assert {stage.kind for stage in stages} == set(Registry.load().kinds("stage"))


def test_every_module_exists_and_work_can_be_run(stages: list[Stage]) -> None:
    for name in {name for stage in stages for name in stage.work}:
        assert callable(import_module(name).run), name
    for name in {name for stage in stages for name in stage.modules}:
        import_module(name)


def test_every_stage_names_its_work_or_does_it_itself(stages: list[Stage]) -> None:
    for stage in stages:
        assert bool(stage.work) != (type(stage).run is not Stage.run), stage.kind


def test_what_depends_on_the_config_is_among_them(stages: list[Stage]) -> None:
    named = {kind: {s.modules for s in stages if s.kind == kind} for kind in ("compress", "verify")}
    assert named["compress"] == {("stages.compress.rtn_streaming",), ("stages.compress.run",)}
    assert named["verify"] == {
        ("stages.verify.run",),
        ("stages.verify.run", "compressed_tensors"),
        ("stages.verify.run", "stages.verify.transformers_check"),
    }
