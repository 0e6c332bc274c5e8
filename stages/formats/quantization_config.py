"""Write and read the `quantization_config` of config.json without compressed-tensors.

Importing compressed-tensors takes as long as compressing a small model. The written config equals
what its own classes dump; configs by other writers are parsed by
`stages.formats.compressed_tensors_bridge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Generic, TypeVar

from pipeline.errors import UserError
from stages.model.blueprint import EMBEDDING, Blueprint, LinearSpec
from stages.model.families import is_router
from stages.schemes.layouts import layout_of
from stages.schemes.protocols import ModuleFormat
from stages.schemes.quant_args import QArgs
from stages.schemes.resolve import Resolved, Targets, matches_name
from stages.schemes.scheme import SchemeGroup

DTYPES = ("scale_dtype", "zp_dtype")
TORCH = "torch."
MIXED = "mixed-precision"
M = TypeVar("M", bound=ModuleFormat)


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedStates:
    """Quantized attention states of a checkpoint: those of the KV cache, or of attention.

    `kinds` are the class names of the attention modules.
    """

    kv_cache: QArgs | None = None
    attention: QArgs | None = None
    kinds: tuple[str, ...] = ()


def quantization_config(
    resolved: Mapping[str, Resolved], blueprint: Blueprint, states: QuantizedStates | None = None
) -> dict[str, Any]:
    """The `quantization_config` of a checkpoint in which exactly `resolved` is quantized.

    `ignore` names every other Linear, and the routers, which engines build as Linears. vLLM looks
    for names as they are on disk, transformers for those of its module tree: where they differ,
    both are there. The schema is that of compressed-tensors.
    """
    modules = [*blueprint.linears(), *(end for end in blueprint.ends() if end.kind == EMBEDDING)]
    schemes: dict[str, SchemeGroup] = {}
    members: dict[str, list[str]] = {}
    for module in modules:
        if module.name in resolved:
            choice = resolved[module.name]
            schemes.setdefault(choice.group, choice.scheme)
            members.setdefault(choice.group, []).extend(reader_names(module))
    targets = {name: list(scheme.targets) for name, scheme in schemes.items()}
    if _ambiguous(modules, resolved, targets) or _too_wide(blueprint, resolved, targets):
        targets = members
    _name_ends(blueprint, resolved, targets)
    layouts = {name: layout_of(scheme) for name, scheme in schemes.items()}
    groups = [
        group_to_config(scheme.weights, scheme.input_activations, layouts[name], targets[name])
        for name, scheme in schemes.items()
    ]
    if states is not None and states.attention is not None:
        groups.append(group_to_config(None, states.attention, None, states.kinds))
    cache = states.kv_cache if states is not None else None
    formats = set(layouts.values())
    return {
        "version": version("compressed-tensors"),
        "sparsity_config": {},
        "transform_config": {},
        "config_groups": {f"group_{i}": group for i, group in enumerate(groups)},
        "quant_method": "compressed-tensors",
        "kv_cache_scheme": None if cache is None else args_to_config(cache),
        "format": formats.pop() if len(formats) == 1 else MIXED if formats else "dense",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "ignore": unquantized(blueprint.linears(), resolved, blueprint),
    }


def args_to_config(args: QArgs) -> dict[str, Any]:
    """Quantization args with every field of compressed-tensors' QuantizationArgs."""
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


def group_to_config(
    weights: QArgs | None, inputs: QArgs | None, layout: str | None, targets: Sequence[str]
) -> dict[str, Any]:
    """A config group with every field of compressed-tensors' QuantizationScheme."""
    return {
        "targets": list(targets),
        "weights": None if weights is None else args_to_config(weights),
        "input_activations": None if inputs is None else args_to_config(inputs),
        "output_activations": None,
        "format": layout,
    }


def unquantized(
    linears: Iterable[LinearSpec], resolved: Mapping[str, Resolved], blueprint: Blueprint
) -> list[str]:
    """Names of all dense Linears for every reader, and of the routers, which engines build so."""
    linears = list(linears)
    known = {linear.prefix for linear in linears}
    dense = [linear for linear in linears if linear.name not in resolved]
    names = [name for linear in dense for name in reader_names(linear)]
    if blueprint.outlined:
        names += [name for linear in dense for name in _base_name(linear, blueprint)]
    for layer in blueprint.layers:
        for stored in layer.tensors.values():
            prefix, _, part = stored.rpartition(".")
            if part == "weight" and is_router(prefix) and prefix not in known:
                names.append(prefix)
    return [*names, *blueprint.converted, *_carried(blueprint)]


def reader_names(linear: LinearSpec) -> tuple[str, ...]:
    """Names by which readers look for a module: that on disk, then that of the module tree.

    transformers has no modules for single experts, so these have the one on disk only.
    """
    if linear.expert or linear.name == linear.prefix:
        return (linear.prefix,)
    return (linear.prefix, linear.name)


def _base_name(linear: LinearSpec, blueprint: Blueprint) -> Iterator[str]:
    """The likely name in transformers' module tree of a module that is known by its tensor only.

    transformers keeps all but the head of a model in its base model, `model`.
    """
    name = "lm_head" if linear.name == blueprint.head else f"model.{linear.prefix}"
    if name != linear.prefix and not linear.prefix.startswith("model."):
        yield name


def untied(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A parsed config.json changed so that lm_head and embedding are not tied."""
    stated = {
        name: {**part, "tie_word_embeddings": False}
        for name, part in settings.items()
        if isinstance(part, Mapping) and "tie_word_embeddings" in part
    }
    return {**settings, **stated, "tie_word_embeddings": False}


def groups_from_config(config: Mapping[str, Any]) -> list[SchemeGroup]:
    """The groups that quantize weights in a `quantization_config` of ours; UserError for others."""
    try:
        groups = list(config["config_groups"].values())
        return [_group(group) for group in groups if group["weights"] is not None]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"quantization_config is not a valid one: {type(error).__name__}: {error}"
        ) from error


class Schemes(Generic[M]):
    """The groups of a checkpoint, indexed by their targets: the first that names one has it."""

    def __init__(self, schemes: Iterable[M]) -> None:
        self._owner: dict[str, M] = {}
        for scheme in schemes:
            for target in scheme.targets:
                self._owner.setdefault(target, scheme)
        self._targets = Targets.of(self._owner)

    def of(self, prefix: str, kind: str = "Linear") -> M:
        """The scheme that loaders use for the compressed module `prefix`.

        Raises UserError if no group targets it.
        """
        target = self._targets.choice((prefix,), kind)
        if target is None:
            raise UserError(
                f"{prefix} is stored compressed, but no group of quantization_config is for it"
            )
        return self._owner[target]


def quantized_prefixes(names: Sequence[str]) -> list[str]:
    """The compressed modules of a checkpoint with the tensors `names`, in their order."""
    return [name.removesuffix(".weight_scale") for name in names if name.endswith(".weight_scale")]


def _name_ends(
    blueprint: Blueprint, resolved: Mapping[str, Resolved], targets: dict[str, list[str]]
) -> None:
    # vLLM builds neither the lm_head nor the embedding as a Linear: only their names select them
    for end in blueprint.ends():
        if end.name in resolved:
            group = resolved[end.name].group
            others = [target for target in targets[group] if target != EMBEDDING]
            targets[group] = list(dict.fromkeys([*others, *reader_names(end)]))


def _ambiguous(
    linears: Iterable[LinearSpec],
    resolved: Mapping[str, Resolved],
    targets: Mapping[str, Sequence[str]],
) -> bool:
    """Whether a reader that knows only one name of each module would find another group for one.

    Loaders let an exact name win over `re:` over a class, whatever the order of the groups.
    """
    owner = {target: name for name in reversed(list(targets)) for target in targets[name]}
    known = Targets.of(owner)
    for linear in linears:
        if linear.name not in resolved:
            continue
        for name in reader_names(linear):
            target = known.choice((name,), linear.kind)
            if target is None or owner[target] != resolved[linear.name].group:
                return True
    return False


def _too_wide(
    blueprint: Blueprint, resolved: Mapping[str, Resolved], targets: Mapping[str, Sequence[str]]
) -> bool:
    """Whether a pattern selects a dense matrix of another class, such as a position embedding.

    Those are not in `ignore`, and transformers would look for their scales.
    """
    patterns = [t for group in targets.values() for t in group if t.startswith("re:")]
    known = {linear.name for linear in blueprint.linears()} | resolved.keys()
    parts = [(blueprint.outside, blueprint.outside_shapes)]
    parts += [(layer.tensors, layer.shapes) for layer in blueprint.layers]
    for tensors, shapes in parts if patterns else ():
        for name, stored in tensors.items():
            module, _, part = name.rpartition(".")
            if part != "weight" or len(shapes[name]) != 2 or module in known:
                continue
            names = (module, stored.removesuffix(".weight"))
            if any(matches_name(pattern, names) for pattern in patterns):
                return True
    return False


def _carried(blueprint: Blueprint) -> Iterator[str]:
    """Dense modules that the model's class does not have, such as extra prediction layers.

    Engines that have them build them from the same config, so it must name them.
    """
    for stored in blueprint.carried:
        prefix, _, part = stored.rpartition(".")
        leaf = prefix.rpartition(".")[2]
        if part == "weight" and "norm" not in leaf and "embed" not in leaf:
            yield prefix


def _group(group: Mapping[str, Any]) -> SchemeGroup:
    inputs = group["input_activations"]
    return SchemeGroup(
        targets=list(group["targets"]),
        weights=_args(group["weights"]),
        input_activations=None if inputs is None else _args(inputs),
        format=group["format"],
    )


def _args(fields: Mapping[str, Any]) -> QArgs:
    values = {name: value for name, value in fields.items() if name != "actorder"}
    for name in DTYPES:
        if values[name] is not None:
            values[name] = values[name].removeprefix(TORCH)
    values["observer_kwargs"] = values["observer_kwargs"] or None
    return QArgs(**values)
