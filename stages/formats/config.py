"""`quantization_config`: what config.json says about a compressed checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import compressed_tensors
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
from pydantic import ValidationError

from pipeline.errors import UserError
from stages.formats.convert import to_args, to_compressed_tensors
from stages.formats.matching import is_router, loader_choice
from stages.formats.qargs import QArgs
from stages.formats.resolve import Resolved
from stages.model.blueprint import EMBEDDING, Blueprint, LinearSpec

MIXED = "mixed-precision"
UNREADABLE = (
    *(ValidationError, ValueError, NotImplementedError, RecursionError),
    *(re.error, OverflowError),  # of expressions
    *(TypeError, KeyError, AttributeError),  # its validators trust types where they should not
)
"""What compressed-tensors raises for configs that are none."""


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
    schemes: dict[str, QuantizationScheme] = {}
    members: dict[str, list[str]] = {}
    for module in modules:
        if module.name in resolved:
            choice = resolved[module.name]
            if choice.group not in schemes:
                schemes[choice.group] = to_compressed_tensors(choice.scheme)
            members.setdefault(choice.group, []).append(module.prefix)
    if _ambiguous(modules, resolved, schemes):
        for name, scheme in schemes.items():
            scheme.targets = members[name]
    _name_ends(blueprint, resolved, schemes)
    formats = {str(scheme.format) for scheme in schemes.values()}
    groups = list(schemes.values())
    if states is not None and states.attention is not None:
        inputs = to_args(states.attention)
        groups.append(QuantizationScheme(targets=list(states.kinds), input_activations=inputs))
    cache = states.kv_cache if states is not None else None
    config = QuantizationConfig(
        config_groups={f"group_{i}": scheme for i, scheme in enumerate(groups)},
        kv_cache_scheme=None if cache is None else to_args(cache),
        format=formats.pop() if len(formats) == 1 else MIXED if formats else "dense",
        quantization_status="compressed",
        ignore=unquantized(blueprint.linears(), resolved, blueprint),
    )
    return {
        "version": compressed_tensors.__version__,
        "sparsity_config": {},
        "transform_config": {},
        **config.model_dump(mode="json"),
    }


def _name_ends(
    blueprint: Blueprint,
    resolved: Mapping[str, Resolved],
    schemes: Mapping[str, QuantizationScheme],
) -> None:
    # vLLM builds neither the lm_head nor the embedding as a Linear: only their names find them
    for end in blueprint.ends():
        if end.name in resolved:
            scheme = schemes[resolved[end.name].group]
            targets = [target for target in scheme.targets if target != EMBEDDING]
            scheme.targets = list(dict.fromkeys([*targets, end.prefix]))


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
    schemes: Mapping[str, QuantizationScheme],
) -> bool:
    # loaders let an exact name win over `re:` over a class, whatever the order of the groups
    owner = {target: name for name in reversed(list(schemes)) for target in schemes[name].targets}
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


def parse(config: Mapping[str, Any]) -> QuantizationConfig:
    """compressed-tensors' reading of a `quantization_config`; UserError if it is not one."""
    try:
        parsed = QuantizationConfig.model_validate(dict(config))
        schemes = [s for s in parsed.config_groups.values() if isinstance(s, QuantizationScheme)]
        for pattern in (*(parsed.ignore or ()), *(t for s in schemes for t in s.targets)):
            if pattern.startswith("re:"):
                re.compile(pattern[3:])
        parsed.model_dump_json()  # fails where a text is none: half of a surrogate pair
    except UNREADABLE as error:
        raise UserError(f"quantization_config is not a valid one: {error}") from error
    for name, scheme in parsed.config_groups.items():
        if isinstance(scheme, QuantizationScheme) and scheme.format is None:
            fixed = {"format": parsed.format if parsed.format != MIXED else None}
            parsed.config_groups[name] = scheme.model_copy(update=fixed)
    return parsed


def scheme_of(prefix: str, config: QuantizationConfig, kind: str = "Linear") -> QuantizationScheme:
    """The scheme that loaders use for a module whose compressed tensors are called `prefix`.

    Raises UserError if no group is for it.
    """
    owner: dict[str, QuantizationScheme] = {}
    for scheme in config.config_groups.values():
        if isinstance(scheme, QuantizationScheme):  # presets by name were expanded by then
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
