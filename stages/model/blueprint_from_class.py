"""Blueprint of a model from its transformers class, config and, if there is one, checkpoint."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from pipeline.errors import UserError
from stages.model.blueprint import Blueprint, LinearSpec, Subgraph
from stages.model.checkpoint_names import Names, expected_names, map_names
from stages.model.experts.linear_experts import LinearExperts
from stages.model.families import fused_groups
from stages.model.meta_model import (
    NO_MODEL,
    Tree,
    UnknownArchitecture,
    config_of,
    dtype_of,
    meta_model,
    tree_of,
)
from stages.model.module_patches import Patched, patches, replacements, swapped
from stages.model.structure.expert_proof import check_experts
from stages.model.traits.linear_use import LinearUse, linear_use
from stages.model.traits.ownership import bare_note, owned
from stages.model.traits.transposed_linears import as_linears, turned

FLAT = re.compile(r"\.experts\b")
"""Modules of experts; matrices of two dimensions in them (DBRX's) hold the rows of all of them."""


class TensorShape(Protocol):
    """A tensor's shape, such as a `TensorSpec` of stages.weights has."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def blueprint_of(
    config: Mapping[str, Any],
    *,
    experts: str = "all",
    specs: Mapping[str, TensorShape] | None = None,
    by_class: Mapping[str, type[Patched]] | None = None,
) -> Blueprint:
    """The blueprint of the model of a parsed config.json.

    `specs` describes the tensors of its checkpoint; the default is what transformers would save.
    `by_class` are the module patches (default: the registry's). Raises UserError for an unknown
    architecture (UnknownArchitecture, for encoder-decoders as well), for experts that cannot be
    taken apart, and for tensors that are missing or have another shape.
    """
    class_config = config_of(config)
    if class_config.is_encoder_decoder:
        raise UnknownArchitecture(
            f"{(class_config.architectures or [class_config.model_type])[0]} is an "
            "encoder-decoder, and what its encoder reads is no calibration text",
            remedy="encoder and decoder are compressed alike, neither can be run here",
        )
    dtype = dtype_of(class_config)
    model = meta_model(class_config, dtype)
    shapes = expected_names(model) if specs is None else {n: s.shape for n, s in specs.items()}
    tree = tree_of(model)
    modules = replacements(model, patches() if by_class is None else by_class)
    names = map_names(model, modules, shapes)
    conv1d = {n: names.found[w] for n in turned(model) if (w := f"{n}.weight") in names.found}
    as_linear = as_linears(conv1d, shapes, model)
    shapes |= as_linear
    _check_experts(model, tree, names, modules)
    if any(isinstance(module, LinearExperts) for module in modules.values()):
        check_experts(config)
    with swapped(model, modules) as replaced:
        patched_as = {name: type(module).__name__ for name, module in replaced.items()}
        shapes |= {name: cut.shape(shapes[cut.stored]) for name, cut in names.cuts.items()}
        shapes |= {name: _joined([shapes[x] for x in parts]) for name, parts in names.joins.items()}
        _check(model, names, shapes)
        ends = model.get_submodule(tree.embedding), model.get_submodule(tree.head)
        use = linear_use(model, tree.layers, modules, ends=ends)
        drawn = _assemble(config, model, tree, names, dtype, experts, patched_as, use)
    return replace(drawn, turned=tuple(as_linear))


def _tied(model: PreTrainedModel) -> Mapping[str, str]:
    tied: Mapping[str, str] = model.all_tied_weights_keys
    return tied


def _check(model: PreTrainedModel, names: Names, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise UserError unless every parameter has a tensor of its shape."""
    tied = _tied(model)
    missing, wrong = [], []
    for name, tensor in model.state_dict().items():
        tensor_name = names.found.get(name) or names.found.get(tied.get(name, ""))
        tensor_name = name if name in names.joins else tensor_name
        if tensor_name is None:
            missing.append(name)
        elif tuple(shapes[tensor_name]) != tuple(tensor.shape):
            wrong.append(f"{tensor_name} is {list(shapes[tensor_name])}, not {list(tensor.shape)}")
    lost = [name for name in missing if name not in names.converted]
    if lost or wrong:
        faults = [f"no tensor for {name}" for name in lost] + wrong
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        raise UserError(
            f"the checkpoint does not fit config.json: {'; '.join(faults[:5])}{more}",
            remedy="check that all files of the model are there and belong together",
        )


def _check_experts(
    model: PreTrainedModel, tree: Tree, names: Names, modules: Mapping[str, nn.Module]
) -> None:
    """Raise UserError unless every expert's weight matrix is one tensor, of one module.

    What else has three dimensions or is made of several tensors (recurrent gates, convolutions)
    stays dense.
    """
    counts = _expert_counts(model)
    mapped = (name.rpartition(".")[0] for name in names.found)
    containers = {name.rpartition(".")[0] for name in names.converted}
    containers |= {name for name in mapped if name in modules}
    containers |= {
        name
        for name, module in model.named_modules()
        if any(
            (parameter.dim() == 3 and (parameter.shape[0] in counts or "expert" in name))
            or (parameter.dim() == 2 and FLAT.search(name))
            for parameter in module.parameters(recurse=False)
        )
        and not f"{name}.".startswith(tuple(f"{patched}." for patched in modules))
        and not type(module).__module__.startswith("torch.nn")
    }
    for layer in tree.layers:
        for name in sorted(containers):
            if name.startswith(f"{layer}."):
                raise UserError(
                    f"{name} is a {type(model.get_submodule(name)).__name__}, whose weights are "
                    "no tensors of one Linear each: experts that no patch takes apart, or tensors "
                    "that transformers puts together of others",
                    remedy="add a patch for this class (entry-point group presswork.patches), or "
                    "say graph=data_free",
                )


def _expert_counts(model: PreTrainedModel) -> set[int]:
    """The numbers of experts that the config states, whatever it calls them."""
    text = model.config.get_text_config(decoder=True).to_dict()
    return {v for n, v in text.items() if n.endswith("experts") and isinstance(v, int) and v > 1}


def _assemble(
    config: Mapping[str, Any],
    model: PreTrainedModel,
    tree: Tree,
    names: Names,
    dtype: str,
    experts: str,
    patched_as: Mapping[str, str],
    use: LinearUse,
) -> Blueprint:
    found = {**names.found, **{name: name for name in names.joins}}
    tied = {a: found[b] for a, b in _tied(model).items() if b in found}
    tied |= {b: found[a] for a, b in _tied(model).items() if a in found}
    tensors = {**tied, **found}
    text = model.config.get_text_config(decoder=True)
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items() if n in tensors}
    outside = [n for n in shapes if not n.startswith(tuple(f"{x}." for x in tree.layers))]
    claimed = {tensors[name] for name in shapes}
    layers = owned(
        [_layer(model, n, index, tensors, dtype) for index, n in enumerate(tree.layers)],
        use,
        names.joins,
    )
    return Blueprint(
        config=dict(config),
        architecture=type(model).__name__,
        model_type=text.model_type,
        dtype=dtype,
        experts=experts,
        tied=f"{tree.head}.weight" in _tied(model),
        vocab_size=text.vocab_size,
        hidden_size=text.hidden_size,
        decoder=tree.decoder,
        embedding=tree.embedding,
        head=tree.head,
        layers=layers,
        outside={name: tensors[name] for name in outside},
        outside_shapes={name: shapes[name] for name in outside},
        outside_linears=tuple(
            _own_name(linear, model, tree)
            for linear in _linears("", model, tensors)
            if not linear.name.startswith(tuple(f"{x}." for x in tree.layers))
        ),
        carried=tuple(n for n in [*names.rest, *names.found.values()] if n not in claimed),
        converted=tuple(
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and f"{name}.weight" not in tensors
        ),
        patches=dict(patched_as),
        cuts=names.cuts,
        joins=names.joins,
        embedding_bare=use.embedding_bare,
        notes=bare_note(layers),
    )


def _joined(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _layer(
    model: PreTrainedModel,
    name: str,
    index: int,
    tensors: Mapping[str, str],
    dtype: str,
) -> Subgraph:
    layer = model.get_submodule(name)
    shapes = {f"{name}.{local}": tuple(t.shape) for local, t in layer.state_dict().items()}
    linears = tuple(_linears(f"{name}.", layer, tensors))
    parameters = sum(math.prod(shape) for shape in shapes.values())
    return Subgraph(
        name=name,
        index=index,
        kind=type(layer).__name__,
        linears=linears,
        tensors={parameter: tensors[parameter] for parameter in shapes},
        shapes=shapes,
        parameters=parameters,
        bytes=parameters * torch.empty(0, dtype=getattr(torch, dtype)).element_size(),
        fused=fused_groups(linears),
    )


def kind_of(linear: nn.Linear) -> str:
    """The class by which targets select a Linear; for loaders a subclass is one as well.

    A subclass that takes inputs of another shape or returns something else (grouped products,
    routers) keeps its own name: it multiplies in another way than its weight's shape says.
    """
    name = type(linear).__name__
    if type(linear) is nn.Linear:
        return name
    try:
        with torch.no_grad():
            x = torch.empty(3, linear.in_features, dtype=linear.weight.dtype, device="meta")
            product = linear(x)
    except NO_MODEL:
        return name
    plain = isinstance(product, torch.Tensor) and product.shape == (3, linear.out_features)
    return nn.Linear.__name__ if plain else name


def _own_name(linear: LinearSpec, model: PreTrainedModel, tree: Tree) -> LinearSpec:
    """A tied lm_head with the name under which transformers would save it if it were untied."""
    weight = f"{linear.name}.weight"
    if linear.name != tree.head or weight not in _tied(model):
        return linear
    (saved,) = revert_weight_conversion(model, {weight: model.state_dict()[weight]})
    return replace(linear, prefix=saved.removesuffix(".weight"))


def _linears(prefix: str, root: nn.Module, tensors: Mapping[str, str]) -> Iterable[LinearSpec]:
    experts = tuple(f"{name}." for name, module in root.named_modules() if hasattr(module, "claim"))
    for local, module in root.named_modules():
        name = f"{prefix}{local}"
        if isinstance(module, nn.Linear) and f"{name}.weight" in tensors:
            yield LinearSpec(
                name=name,
                prefix=tensors[f"{name}.weight"].removesuffix(".weight"),
                in_features=module.in_features,
                out_features=module.out_features,
                bias=module.bias is not None,
                expert=bool(experts) and local.startswith(experts),
                kind=kind_of(module),
            )
