"""Write and read `quantization_config` without compressed-tensors.

compressed-tensors takes as long to import as a small model takes to be compressed. What is written
equals what its own models dump; what it reads more leniently is left to
`stages.formats.compressed_tensors_bridge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

from pipeline.errors import UserError
from stages.model.blueprint import EMBEDDING, Blueprint, LinearSpec
from stages.model.families import is_router
from stages.schemes.layouts import layout_of
from stages.schemes.protocols import ModuleFormat
from stages.schemes.quant_args import QArgs
from stages.schemes.resolve import Resolved, loader_choice
from stages.schemes.scheme import SchemeGroup

DTYPES = ("scale_dtype", "zp_dtype")
TORCH = "torch."


def args_said(args: QArgs) -> dict[str, Any]:
    """How one tensor is quantized, with every field that QuantizationArgs has."""
    return {
        "num_bits": args.num_bits,
        "type": args.type,
        "symmetric": args.symmetric,
        "group_size": args.group_size,
        "strategy": args.strategy,
        "block_structure": args.block_structure,
        "dynamic": args.dynamic,
        "actorder": None,
        "scale_dtype": None if args.scale_dtype is None else TORCH + args.scale_dtype,
        "zp_dtype": None if args.symmetric else TORCH + (args.zp_dtype or "int8"),
        "observer": args.observer,
        "observer_kwargs": args.observer_kwargs or {},
    }


def group_said(
    weights: QArgs | None, inputs: QArgs | None, layout: str | None, targets: Sequence[str]
) -> dict[str, Any]:
    """A group of modules, with every field that QuantizationScheme has."""
    return {
        "targets": list(targets),
        "weights": None if weights is None else args_said(weights),
        "input_activations": None if inputs is None else args_said(inputs),
        "output_activations": None,
        "format": layout,
    }


def groups_read(config: Mapping[str, Any]) -> list[SchemeGroup]:
    """The formats in a `quantization_config` of ours; UserError for what is no such thing."""
    try:
        groups = list(config["config_groups"].values())
        return [_group(group) for group in groups if group["weights"] is not None]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"quantization_config is not a valid one: {type(error).__name__}: {error}"
        ) from error


def _group(said: Mapping[str, Any]) -> SchemeGroup:
    inputs = said["input_activations"]
    return SchemeGroup(
        targets=list(said["targets"]),
        weights=_args(said["weights"]),
        input_activations=None if inputs is None else _args(inputs),
        format=said["format"],
    )


def _args(said: Mapping[str, Any]) -> QArgs:
    values = {name: value for name, value in said.items() if name != "actorder"}
    for name in DTYPES:
        if values[name] is not None:
            values[name] = values[name].removeprefix(TORCH)
    values["observer_kwargs"] = values["observer_kwargs"] or None
    return QArgs(**values)


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
