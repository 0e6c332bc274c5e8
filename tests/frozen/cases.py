"""The configs whose plan keys are frozen: every graph with ten schemes or budgets, and more.

Hydra composes one config a graph; schemes, modifiers and single values are put into it as the
command line would, for composing takes longer than all the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tests.frozen.plans import CONFIGS, Keys, compose, keys_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What one config says. `parts`: key -> file of conf; `values`: key -> value, in this order."""

    base: str
    scheme: str | None = None
    modifiers: tuple[str, ...] = ("rtn",)
    parts: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


BASES: Mapping[str, tuple[str, ...]] = {
    "calibrated": ("graph=calibrated", "eval=none"),
    "evaluated": ("graph=calibrated", "eval=standard"),
    "data_free": ("graph=data_free", "eval=none"),
    "budget": ("scheme=auto", "graph=budget", "eval=none"),
    "budget_forward": ("scheme=auto", "graph=budget_forward", "eval=none"),
}
MODIFIERS = {
    "llama": (("gptq",), ("smoothquant", "gptq")),
    "qwen3_moe": (("rtn",),),
}
CALIBRATED = "w4a16_g64 w8a8 fp8 fp8_dynamic fp8_block nvfp4 nvfp4a16 mxfp4 mxfp8 mixed"
DATA_FREE = "w4a16_g64 w4a16_asym w8a16 w8a8 fp8_dynamic fp8_block nvfp4a16 mxfp4 mxfp8 mixed"

MORE: Mapping[str, Case] = {
    "kv_cache": Case(
        base="calibrated",
        scheme="w8a8",
        modifiers=("gptq",),
        parts={"scheme.kv_cache": "kv_cache/fp8"},
    ),
    "kv_nvfp4": Case(
        base="calibrated", scheme="w4a16_g64", parts={"scheme.kv_cache": "kv_cache/nvfp4"}
    ),
    "attention": Case(
        base="calibrated", scheme="w4a16_g64", parts={"scheme.attention": "attention/fp8"}
    ),
    "routed": Case(
        base="calibrated",
        scheme="w4a16",
        modifiers=("gptq",),
        values={
            "calibrate.propagate": "original",
            "calibrate.experts": "routed",
            "calibrate.batch_size": 2,
            "dataset.num_samples": 5,
        },
    ),
    "lm_head": Case(
        base="calibrated",
        scheme="w8a8",
        modifiers=("gptq",),
        values={"scheme.ignore": [], "save.name": "all", "save.max_shard_bytes": 1_000_000},
    ),
    "numerics": Case(
        base="calibrated",
        scheme="w4a16_g64",
        values={
            "device": "cuda",
            "plan.elsewhere": True,
            "runner.threads": 3,
            "save.compressed": False,
        },
    ),
    "options": Case(
        base="calibrated",
        scheme="w4a16_g64",
        modifiers=("smoothquant", "gptq"),
        values={
            "modifier.smoothquant.smoothing_strength": 0.8,
            "modifier.smoothquant.pairs": ["norm", "linear"],
            "modifier.gptq.observer": "mse",
            "modifier.gptq.on_failure": "fallback",
        },
    ),
    "eval": Case(base="evaluated", scheme="w4a16_g64", modifiers=("gptq",)),
}
BUDGETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "bits": {"scheme.budget.bits_per_weight": 6},
    "three": {
        "scheme.candidates": ["w3a16", "w4a16_asym", "w8a16"],
        "scheme.group_sizes": [64],
    },
    "floats": {
        "scheme.candidates": ["nvfp4a16", "mxfp8a16"],
        "scheme.budget.bits_per_weight": 6,
        "scheme.ignore": ["lm_head", "re:.*q_proj"],
    },
    "original": {
        "scheme.solver": {"kind": "gptq", "observer": "mse"},
        "calibrate.propagate": "original",
    },
}


WHOLE = {
    "calibrated": ("kv_cache", "options", "eval", "lm_head"),
    "budget": ("default", "floats"),
    "budget_forward": ("default",),
    "data_free": ("fp8_dynamic",),
}
"""Cases of which every key is kept, so that one can see which stage a change is in."""


def cases_of(graph: str, family: str) -> dict[str, Case]:
    """The cases of a graph (a key of WHOLE) for a model by name."""
    if graph == "data_free":
        return {scheme: Case(base=graph, scheme=scheme) for scheme in DATA_FREE.split()}
    if graph == "budget":
        return {
            name: Case(base=graph, modifiers=("gptq",), values=values)
            for name, values in BUDGETS.items()
        }
    if graph == "budget_forward":
        return {name: Case(base=graph, values=BUDGETS[name]) for name in ("default", "original")}
    schemes = {
        f"{scheme} {','.join(names)}": Case(base=graph, scheme=scheme, modifiers=names)
        for scheme in CALIBRATED.split()
        for names in MODIFIERS[family]
    }
    return {**schemes, **MORE}


def plan_of(case: Case, model: Path, text: Path) -> Keys:
    """The keys of all nodes for a model folder and a text; no path is part of a key."""
    raw = copy.deepcopy(_base(case.base))
    if case.scheme is not None:
        raw["scheme"] = _file(f"scheme/{case.scheme}")
    for key, name in case.parts.items():
        _put(raw, key, _file(name))
    raw["modifier"] = {name: raw["modifier"][name] for name in case.modifiers}
    for key, value in {**case.values, "model.path": str(model), "dataset.path": str(text)}.items():
        _put(raw, key, value)
    if case.base == "evaluated":
        raw["eval"]["dataset"] = {"kind": "text", "path": str(text), "part": "held_out"}
    return keys_of(OmegaConf.create(raw))


@cache
def _base(name: str) -> dict[str, Any]:
    """A graph with every modifier there is a case for; references are left as they are."""
    choices = ("model=local", "dataset=text", "modifier=[rtn,smoothquant,gptq]", *BASES[name])
    cfg = compose("mode=plan", "device=cpu", "runner.threads=1", *choices)
    return dict(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]


def _file(name: str) -> dict[str, Any]:
    """What a file of conf says that has no defaults of its own."""
    found = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml"))
    assert isinstance(found, dict) and "defaults" not in found
    return {str(name): value for name, value in found.items()}


def _put(raw: dict[str, Any], key: str, value: Any) -> None:
    *above, last = key.split(".")
    for name in above:
        raw = raw[name]
    raw[last] = {**raw[last], **value} if isinstance(raw.get(last), dict) else value
