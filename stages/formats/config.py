"""`quantization_config`: what config.json says about a compressed checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

from pipeline.errors import UserError
from stages.formats.layout import layout_of
from stages.formats.matching import is_router, loader_choice
from stages.formats.protocols import ModuleFormat
from stages.formats.qargs import QArgs
from stages.formats.resolve import Resolved
from stages.formats.said import args_said, group_said
from stages.formats.scheme import SchemeGroup
from stages.model.blueprint import EMBEDDING, Blueprint, LinearSpec

MIXED = "mixed-precision"
M = TypeVar("M", bound=ModuleFormat)


@dataclass(frozen=True, kw_only=True, slots=True)
class States:
    """Quantized attention states of a checkpoint: of the cache, or of attention as a whole.

    `kinds` are the class names of the attention modules.
    """

    kv_cache: QArgs | None = None
    attention: QArgs | None = None
    kinds: tuple[str, ...] = ()


def quantization_config(
    resolved: Mapping[str, Resolved], blueprint: Blueprint, states: States | None = None
) -> dict[str, Any]:
    """The dict for config.json of a checkpoint in which exactly `resolved` is quantized.

    `ignore` names every other Linear, and the modules that engines build as Linears to choose
    experts, as the checkpoint names them. The schema is compressed-tensors' own.
    """
    modules = [*blueprint.linears(), *(end for end in blueprint.ends() if end.kind == EMBEDDING)]
    schemes: dict[str, SchemeGroup] = {}
    members: dict[str, list[str]] = {}
    for module in modules:
        if module.name in resolved:
            choice = resolved[module.name]
            schemes.setdefault(choice.group, choice.scheme)
            members.setdefault(choice.group, []).append(module.prefix)
    targets = {name: list(scheme.targets) for name, scheme in schemes.items()}
    if _ambiguous(modules, resolved, targets):
        targets = members
    _name_ends(blueprint, resolved, targets)
    layouts = {name: layout_of(scheme) for name, scheme in schemes.items()}
    groups = [
        group_said(scheme.weights, scheme.input_activations, layouts[name], targets[name])
        for name, scheme in schemes.items()
    ]
    if states is not None and states.attention is not None:
        groups.append(group_said(None, states.attention, None, states.kinds))
    cache = states.kv_cache if states is not None else None
    formats = set(layouts.values())
    return {
        "version": version("compressed-tensors"),
        "sparsity_config": {},
        "transform_config": {},
        "config_groups": {f"group_{i}": group for i, group in enumerate(groups)},
        "quant_method": "compressed-tensors",
        "kv_cache_scheme": None if cache is None else args_said(cache),
        "format": formats.pop() if len(formats) == 1 else MIXED if formats else "dense",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "ignore": unquantized(blueprint.linears(), resolved, blueprint),
    }


def _name_ends(
    blueprint: Blueprint, resolved: Mapping[str, Resolved], targets: dict[str, list[str]]
) -> None:
    # vLLM builds neither the lm_head nor the embedding as a Linear: only their names find them
    for end in blueprint.ends():
        if end.name in resolved:
            group = resolved[end.name].group
            others = [target for target in targets[group] if target != EMBEDDING]
            targets[group] = list(dict.fromkeys([*others, end.prefix]))


def unquantized(
    linears: Iterable[LinearSpec], resolved: Mapping[str, Resolved], blueprint: Blueprint
) -> list[str]:
    """Checkpoint names of all Linears, and of what engines build as Linears, that stay dense."""
    linears = list(linears)
    known = {linear.prefix for linear in linears}
    names = [linear.prefix for linear in linears if linear.name not in resolved]
    for layer in blueprint.layers:
        for stored in layer.tensors.values():
            prefix, _, part = stored.rpartition(".")
            if part == "weight" and is_router(prefix) and prefix not in known:
                names.append(prefix)
    return [*names, *_carried(blueprint)]


def _carried(blueprint: Blueprint) -> Iterator[str]:
    """Modules that no part of the model claims (extra prediction layers), which stay dense.

    Engines that do have them build them with the same config, so it must name them.
    """
    for stored in blueprint.carried:
        prefix, _, part = stored.rpartition(".")
        leaf = prefix.rpartition(".")[2]
        if part == "weight" and "norm" not in leaf and "embed" not in leaf:
            yield prefix


def _ambiguous(
    linears: Iterable[LinearSpec],
    resolved: Mapping[str, Resolved],
    targets: Mapping[str, Sequence[str]],
) -> bool:
    # loaders let an exact name win over `re:` over a class, whatever the order of the groups
    owner = {target: name for name in reversed(list(targets)) for target in targets[name]}
    for linear in linears:
        if linear.name not in resolved:
            continue
        target = loader_choice((linear.name, linear.prefix), linear.kind, owner)
        if target is None or owner[target] != resolved[linear.name].group:
            return True
    return False


def untied(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A parsed config.json that says that head and embedding have tensors of their own."""
    stated = {
        name: {**part, "tie_word_embeddings": False}
        for name, part in settings.items()
        if isinstance(part, Mapping) and "tie_word_embeddings" in part
    }
    return {**settings, **stated, "tie_word_embeddings": False}


def scheme_of(prefix: str, schemes: Iterable[M], kind: str = "Linear") -> M:
    """The scheme that loaders use for a module whose compressed tensors are called `prefix`.

    Raises UserError if no group is for it.
    """
    owner: dict[str, M] = {}
    for scheme in schemes:
        owner.update((target, scheme) for target in scheme.targets if target not in owner)
    target = loader_choice((prefix,), kind, owner)
    if target is None:
        raise UserError(
            f"{prefix} is stored compressed, but no group of quantization_config is for it"
        )
    return owner[target]


def quantized_prefixes(names: Sequence[str]) -> list[str]:
    """The modules that a checkpoint with tensors `names` stores compressed, in that order."""
    return [name.removesuffix(".weight_scale") for name in names if name.endswith(".weight_scale")]
