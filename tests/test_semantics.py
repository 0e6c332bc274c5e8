"""Every field of every stage's config is in the key of its nodes, unless it says that it is not."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.key import digest
from pipeline.registry import Registry
from pipeline.stage import Stage
from stages.compress.modifiers.observer import PerTarget
from stages.compress.stage import Compress, CompressConfig
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeConfig, SchemeGroup
from tests.pipeline.tiny import composed

ELSEWHERE = {
    "load": ("model",),  # a model is known by its content: tests/stages/load
    "propagate": ("scheme",),  # it is in the key of the layer that is its input
    "cache": ("scheme",),  # of it only what says how states are stored: tests/stages/calibrate
    "compress_outside": ("scheme", "modifiers"),  # of them what its own modules get
    "rotate": ("modifiers",),  # of them the one that rotates: test_spinquant.py
    "owl": ("modifiers",),  # of them the outliers that one asks for: tests/stages/choose/test_owl
    "sensitivity": ("scheme",),  # of it the formats that fit, and the solver that tries them
    "scores": ("vllm",),  # that an interpreter is given, not which: tests/stages/eval/tasks
    "choose": ("scheme",),  # its candidates and its budget too: tests/stages/choose
}
"""Fields of stages whose part in a key is not the field itself."""

GRAPHS = {
    "calibrated": ("eval=standard", "modifier=[smoothquant,gptq]", "scheme=mixed"),
    "budget": ("eval=none", "scheme=auto"),
    "data_free": ("graph=data_free", "eval=none", "modifier=rtn", "scheme=fp8_dynamic"),
    "tasks": ("eval=tasks", "push=hub", "push.repo=org/name"),
    "experts": ("eval=none", "modifier=[reap,gptq]"),
}


def sites(*words: str) -> dict[str, Stage]:
    given = ["mode=plan", "device=cpu", *words]
    cfg = composed(own_configs(), *given, name="config")
    config = load_config(cfg, Registry.load(), overrides=given)
    return {name: site.stage for name, site in config.graph.sites.items()}


ENTRIES: dict[str, object] = {"per_target": [PerTarget(targets=["x"])]}
"""Lists of dataclasses that are empty in every config that ships -> with one entry."""


def changed(value: object) -> object:
    """Another value of the same kind, whether or not the config's checks would let it pass."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return [*value, "x"]
    if isinstance(value, dict):
        return {**value, "x": 1}
    return "x"  # of None


def variants(value: Any, path: str = "", *, keyed: bool = True) -> Iterator[tuple[str, bool, Any]]:
    """(path, whether it belongs to the key, a copy with that one leaf changed) for each leaf."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            mine = keyed and bool(field.metadata.get("key", True))  # a function: its result is
            for where, counts, other in variants(
                getattr(value, field.name), f"{path}.{field.name}", keyed=mine
            ):
                whole = copy.copy(value)
                object.__setattr__(whole, field.name, other)
                yield where, counts, whole
    elif isinstance(value, tuple) and value:
        for index, item in enumerate(value):
            for where, counts, other in variants(item, f"{path}[{index}]", keyed=keyed):
                yield where, counts, (*value[:index], other, *value[index + 1 :])
    elif isinstance(value, dict) and any(dataclasses.is_dataclass(v) for v in value.values()):
        for name, item in value.items():
            for where, counts, other in variants(item, f"{path}.{name}", keyed=keyed):
                yield where, counts, {**value, name: other}
    else:
        name = path.rpartition(".")[2]
        yield path, keyed, ENTRIES[name] if name in ENTRIES else changed(value)


def check(stage: Stage) -> int:
    """Every leaf that belongs to the key changes it, no other does; how many leaves there are."""
    before = digest(stage.semantics(None))
    assert digest(type(stage)(copy.deepcopy(stage.config)).semantics(None)) == before
    skipped = tuple(f".{name}" for name in ELSEWHERE.get(stage.kind, ()))
    count = 0
    for where, counts, config in variants(stage.config):
        if where.startswith(skipped) and skipped:
            continue
        after = digest(type(stage)(config).semantics(None))
        assert (after != before) == counts, f"{stage.kind}{where}"
        count += 1
    return count


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_field_of_every_stage_is_in_its_key(graph: str) -> None:
    found = sites(*GRAPHS[graph])
    counts = {name: check(stage) for name, stage in found.items()}
    assert counts["compress"] > 30 and counts["save"] > 20
    if graph == "calibrated":
        assert counts["tokens"] > 3 and counts["calibrate"] > 2 and counts["eval"] >= 2


def test_every_kind_of_stage_is_looked_at() -> None:
    seen = {stage.kind for graph in GRAPHS.values() for stage in sites(*graph).values()}
    assert seen == set(Registry.load().kinds("stage"))


WEIGHTS = QArgs(num_bits=4, strategy="group", group_size=128, zp_dtype="int8")
INPUTS = QArgs(num_bits=8, strategy="tensor", observer="static_minmax")
SCHEME = dataclasses.replace(
    SchemeConfig(weights=WEIGHTS, input_activations=INPUTS),
    groups={"some": SchemeGroup(weights=WEIGHTS, format="pack-quantized")},
)


@pytest.mark.parametrize("kind", Registry.load().kinds("modifier"))
def test_every_option_of_every_modifier_is_in_the_key(kind: str) -> None:
    modifier = Registry.load().get("modifier", kind)()
    stage = Compress(CompressConfig(scheme=SCHEME, modifiers=(modifier,)))
    assert check(stage) > len(dataclasses.fields(modifier)) + len(dataclasses.fields(WEIGHTS))


def test_the_order_of_modifiers_is_in_the_key() -> None:
    registry = Registry.load()
    smooth, gptq = (registry.get("modifier", kind)() for kind in ("smoothquant", "gptq"))
    one = Compress(CompressConfig(scheme=SCHEME, modifiers=(smooth, gptq)))
    other = CompressConfig(scheme=SCHEME, modifiers=(smooth, gptq))
    object.__setattr__(other, "modifiers", (gptq, smooth))
    assert digest(one.semantics(None)) != digest(Compress(other).semantics(None))
