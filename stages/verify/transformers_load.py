"""Load a checkpoint as transformers does, on the meta device: names, shapes and formats.

`from_pretrained` builds the model on the meta device, lets the quantizer of compressed-tensors
turn the modules that `quantization_config` selects into compressed ones, and finds a parameter for
every tensor by the model's conversion mapping. The same is done here, with headers in place of
weights, so that it takes little memory and seconds for a model of any size.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, fields
from typing import Any

import torch
from compressed_tensors.quantization import QuantizationScheme
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    rename_source_key,
    set_param_for_module,
)
from transformers.quantizers.auto import AutoHfQuantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.loading_report import LoadStateDictInfo

from stages.formats.compressed_tensors_bridge import as_compressed_tensors
from stages.model.blueprint_from_names import natural
from stages.model.meta_model import config_of, dtype_of, meta_model
from stages.schemes.protocols import ModuleFormat
from stages.verify.bounded_patterns import bounded
from stages.weights import TensorSpec

ZERO_POINT = ".weight_zero_point"


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A tensor of the checkpoint, or a parameter without one, that transformers trips over.

    `kind`: what of transformers is at its limits, where that is no matter of the name.
    """

    name: str
    text: str
    kind: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversions:
    """How transformers finds the parameter for a tensor; `quantizer` None: of a dense model."""

    model: PreTrainedModel
    state: dict[str, torch.Tensor]
    renamings: list[WeightRenaming]
    converters: list[WeightConverter]
    quantizer: HfQuantizer | None

    @classmethod
    def of(cls, model: PreTrainedModel, quantizer: HfQuantizer | None) -> Conversions:
        entries = get_model_conversion_mapping(model, None, quantizer)
        return cls(
            model=model,
            state=model.state_dict(),
            renamings=[entry for entry in entries if isinstance(entry, WeightRenaming)],
            converters=[entry for entry in entries if isinstance(entry, WeightConverter)],
            quantizer=quantizer,
        )

    def target(self, name: str) -> tuple[str, str | None]:
        """The parameter of a tensor, and the pattern of the converter that merges it into that."""
        base = self.model.base_model_prefix
        found = rename_source_key(name, self.renamings, self.converters, base, self.state)
        if found[0] not in self.state and name in self.state:
            return rename_source_key(name, [], [], base, self.state)
        return found

    def converter(self, pattern: str) -> WeightConverter:
        """The last converter with a source pattern, which is the one that transformers takes."""
        return next(c for c in reversed(self.converters) if pattern in c.source_patterns)


@dataclass(frozen=True, kw_only=True, slots=True)
class Loading:
    """Parameters that transformers finds for the tensors of a checkpoint.

    `direct` maps tensors to parameters that take them as they are, `merged` parameters to the
    tensors (name, pattern of a converter) that are made into one.
    """

    conversions: Conversions
    direct: Mapping[str, str]
    merged: Mapping[str, list[tuple[str, str]]]
    unexpected: Mapping[str, str]


def quantized_model(settings: Mapping[str, Any]) -> tuple[PreTrainedModel, HfQuantizer]:
    """The model of a config.json on the meta device, its modules as they are compressed.

    Raises UserError for a config that transformers has no class for or rejects.
    """
    config = config_of(settings)
    # cast afterwards: stages beside this one must not meet another default dtype than float32
    model = meta_model(config, "float32").to(getattr(torch, dtype_of(config)))
    given = bounded(settings["quantization_config"], [name for name, _ in model.named_modules()])
    with torch.device("meta"), redirect_stderr(io.StringIO()):  # bars, and names that match nothing
        quantizer: HfQuantizer = AutoHfQuantizer.from_config(given, pre_quantized=True)
        quantizer.validate_environment(device_map=None, weights_only=True)
        quantizer.preprocess_model(
            model=model,
            dtype=model.dtype,
            device_map=None,
            checkpoint_files=None,
            use_kernels=False,
        )
    return model, quantizer


def loading_of(settings: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> Loading:
    """Find the parameter of every tensor; see :class:`Loading`."""
    conversions = Conversions.of(*quantized_model(settings))
    direct: dict[str, str] = {}
    merged: dict[str, list[tuple[str, str]]] = {}
    unexpected: dict[str, str] = {}
    for name in sorted(specs, key=natural):
        target, pattern = conversions.target(name)
        if target not in conversions.state:
            unexpected[name] = target
        elif pattern is None:
            direct[name] = target
        else:
            merged.setdefault(target, []).append((name, pattern))
    return Loading(conversions=conversions, direct=direct, merged=merged, unexpected=unexpected)


def name_problems(loading: Loading, carried: frozenset[str]) -> Iterator[Problem]:
    """Tensors without a parameter, but for modules in `carried`; parameters without a tensor."""
    conversions = loading.conversions
    missing = set(conversions.state) - set(loading.direct.values())
    for target, sources in loading.merged.items():
        first, *others = conversions.converter(sources[0][1]).target_patterns
        missing -= {target, *(target.replace(first, other) for other in others)}
    tied: Mapping[str, str] = conversions.model.all_tied_weights_keys
    missing -= {name for name, source in tied.items() if source not in missing}
    keys = _loading_info(missing, set(loading.unexpected))
    conversions.model._adjust_missing_and_unexpected_keys(keys)
    for name in sorted(keys.missing_keys, key=natural):
        yield Problem(name=name, text=f"{name} gets no tensor")
    for name in sorted(keys.unexpected_keys, key=natural):
        if name not in carried and name.rpartition(".")[0] not in carried:
            yield Problem(name=name, text=f"{name} is expected by no module")


def shape_problems(loading: Loading, specs: Mapping[str, TensorSpec]) -> Iterator[Problem]:
    """Tensors of another shape than that of the parameter that takes them as they are.

    Packed zero points have another one in the model than on disk, which transformers up to 5.22
    takes as it is: there it is asked.
    """
    for name, target in loading.direct.items():
        wanted, found = tuple(loading.conversions.state[target].shape), tuple(specs[name].shape)
        if wanted == found or (name.endswith(ZERO_POINT) and _taken(loading, target, found)):
            continue
        yield Problem(name=name, text=f"{name} is {list(found)} instead of {list(wanted)}")


def _taken(loading: Loading, target: str, shape: tuple[int, ...]) -> bool:
    """Whether transformers puts a tensor of another shape into a parameter."""
    conversions, keys = loading.conversions, _loading_info(set(), set())
    like = torch.empty(shape, dtype=conversions.state[target].dtype, device="meta")
    if conversions.quantizer is not None:
        set_param_for_module(conversions.model, target, like, keys, conversions.quantizer)
    return not keys.mismatched_keys


def _loading_info(missing: set[str], unexpected: set[str]) -> LoadStateDictInfo:
    """What transformers' own rules on keys are applied to; its fields differ by version."""
    empty: dict[str, Any] = {part.name: set() for part in fields(LoadStateDictInfo)}
    return LoadStateDictInfo(**empty | {"missing_keys": missing, "unexpected_keys": unexpected})


def format_problems(loading: Loading, quantized: Mapping[str, ModuleFormat]) -> Iterator[Problem]:
    """Compressed modules that are read in another format; `quantized` has the names on disk."""
    for prefix, scheme in quantized.items():
        target = loading.direct.get(f"{prefix}.weight_scale")
        if target is None:
            continue  # told by the names, or merged with others
        module = loading.conversions.model.get_submodule(target.rpartition(".")[0])
        chosen = getattr(module, "quantization_scheme", None)
        if _numbers(chosen) != _numbers(as_compressed_tensors(scheme)):
            yield Problem(name=prefix, text=f"{prefix} is read in the format of another group")


def forward_problems(loading: Loading) -> Iterator[Problem]:
    """A model whose weights stay compressed because its own forward is never called.

    compressed-tensors decompresses them by a hook on the first forward of the whole model.
    Qwen3-Omni has none: it generates by calling its parts.
    """
    model = loading.conversions.model
    if model._forward_pre_hooks and type(model).forward is nn.Module.forward:
        text = (
            f"{type(model).__name__} has no forward of its own, in which weights would be "
            "decompressed: give from_pretrained "
            "quantization_config=CompressedTensorsConfig(dequantize=True)"
        )
        yield Problem(name="", text=text, kind="models that only their parts run")


def _numbers(scheme: QuantizationScheme | None) -> list[tuple[str, ...] | None]:
    """What of a scheme decides on the values of a module."""
    if scheme is None:
        return []
    names = "num_bits type symmetric strategy group_size block_structure dynamic".split()
    return [
        None if args is None else tuple(str(getattr(args, name)) for name in names)
        for args in (scheme.weights, scheme.input_activations)
    ]
