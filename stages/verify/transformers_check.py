"""Verdict of loading a checkpoint as transformers does: faults, and limits of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pipeline.errors import UserError
from stages.formats.module_tensors import INPUT_PARTS
from stages.model.blueprint import EMBEDDING, Blueprint
from stages.model.meta_model import NO_MODEL, UnknownArchitecture
from stages.schemes.protocols import ModuleFormat
from stages.verify.transformers_experts import expert_problems
from stages.verify.transformers_initialization import initialization_problems
from stages.verify.transformers_load import (
    Conversions,
    format_problems,
    forward_problems,
    loading_of,
    name_problems,
    shape_problems,
)
from stages.verify.transformers_merges import dense_merge_problems
from stages.weights import TensorSpec

SHOWN = 3
NAME = "loading in transformers"
INPUTS = "static scales of experts' inputs are not used"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether transformers loads a checkpoint rightly; None: it has no class for the model.

    `faults` are mistakes of the checkpoint; `limits` are kinds of modules that this version of
    transformers does not load, whoever wrote them, while vLLM does. `remarks` are what it leaves
    out of what it loads.
    """

    loads: bool | None
    faults: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `engines.transformers` of result.json has it."""
        return {
            "version": version("transformers"),
            "loads": self.loads,
            "checked": True,
            "why": [*self.faults, *self.limits, *self.remarks],
        }

    def check(self) -> dict[str, Any]:
        """As an entry of the list of checks: `ok` is null where transformers is at its limits."""
        if self.faults:
            return {"name": NAME, "ok": False, "detail": "; ".join(self.faults[:SHOWN])}
        if self.limits:
            known = f"transformers {version('transformers')} does not load it, vLLM may: "
            return {"name": NAME, "ok": None, "detail": known + "; ".join(self.limits)}
        return {"name": NAME, "ok": True, "detail": "; ".join(self.remarks)}


def verdict_of(
    settings: Mapping[str, Any],
    specs: Mapping[str, TensorSpec],
    blueprint: Blueprint,
    quantized: Mapping[str, ModuleFormat],
) -> Verdict:
    """Load a checkpoint on the meta device as transformers would, and say what goes wrong.

    `settings` is its config.json with a quantization_config, `specs` are its tensors, `blueprint`
    the model that it should be; `quantized` maps compressed modules, by their names on disk, to
    their formats.
    """
    try:
        loading = loading_of(settings, specs)
        plain = Conversions.of(loading.conversions.model, None)
        problems = [
            *name_problems(loading, _carried(blueprint)),
            *shape_problems(loading, specs),
            *format_problems(loading, quantized),
            *expert_problems(loading, plain, quantized),
            *dense_merge_problems(loading, plain, specs, quantized),
            *forward_problems(loading),
            *initialization_problems(loading),
        ]
    except UnknownArchitecture as error:
        return Verdict(loads=None, limits=(error.what,))
    except (UserError, *NO_MODEL) as error:
        return Verdict(loads=False, faults=(f"{type(error).__name__}: {error}",))
    kinds: dict[str, list[str]] = {}
    limits = Limits.of(blueprint, quantized)
    for problem in problems:
        kinds.setdefault(limits.kind(problem.name) or problem.kind, []).append(problem.text)
    remarks = (INPUTS,) if kinds.pop(INPUTS, ()) else ()
    faults = tuple(kinds.pop("", ()))
    known = tuple(f"{kind}: {_told(texts)}" for kind, texts in kinds.items())
    return Verdict(loads=not (faults or known), faults=faults, limits=known, remarks=remarks)


def _carried(blueprint: Blueprint) -> frozenset[str]:
    """Tensors that the original's class does not have either, and their modules."""
    return frozenset({*blueprint.carried, *(n.rpartition(".")[0] for n in blueprint.carried)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The kinds of modules that some version of transformers does not load.

    `experts` are the names on disk of experts' Linears, `containers` those of their parents in the
    module tree, `embeddings` all names of compressed embeddings, `shared` the names in the module
    tree of what layers share: transformers ties weights to each other, but not their scales.
    """

    experts: frozenset[str]
    containers: frozenset[str]
    embeddings: frozenset[str]
    shared: frozenset[str]
    conv1d: frozenset[str]
    """All names of compressed Conv1D modules: compressed-tensors makes parameters for Linears."""

    @classmethod
    def of(cls, blueprint: Blueprint, quantized: Mapping[str, ModuleFormat]) -> Limits:
        experts = [linear for linear in blueprint.linears() if linear.expert]
        ends = [e for e in blueprint.ends() if e.kind == EMBEDDING and e.prefix in quantized]
        turned = [
            linear
            for linear in blueprint.linears()
            if f"{linear.prefix}.weight" in blueprint.turned and linear.prefix in quantized
        ]
        return cls(
            experts=frozenset(linear.prefix for linear in experts),
            containers=frozenset(linear.name.rsplit(".", 2)[0] for linear in experts),
            embeddings=frozenset(name for end in ends for name in (end.name, end.prefix)),
            shared=blueprint.shared(),
            conv1d=frozenset(name for x in turned for name in (x.name, x.prefix)),
        )

    def kind(self, name: str) -> str:
        """The kind of module that a tensor or parameter belongs to; "" if it has to be loaded."""
        module, _, part = name.rpartition(".")
        if module in self.conv1d:
            return "compressed Conv1D modules"
        if part == "weight_zero_point" and module not in self.experts:
            return "packed zero points"
        if module in self.embeddings:
            return "compressed embeddings"
        if module in self.shared:
            return "compressed modules that layers share"
        if module in self.experts:
            return INPUTS if part in INPUT_PARTS else "compressed experts"
        inside = any(name.startswith(f"{container}.") for container in self.containers)
        return "compressed experts" if inside else ""


def _told(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more
