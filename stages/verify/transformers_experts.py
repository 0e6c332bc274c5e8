"""Experts as transformers reads them: decompressed and merged while loading, tried on small ones.

transformers keeps the experts of a layer in one parameter, into which converters merge what the
checkpoint has for each. Names alone do not tell whether the values are right (NVFP4 experts are
merged without their global scales), so two experts of random codes go through the converters and
are compared with what their dense weights become.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from copy import deepcopy

import torch
from torch import Tensor
from transformers.core_model_loading import WeightConverter

from stages.formats.compressed_tensors_bridge import as_compressed_tensors
from stages.formats.module_tensors import INPUT_PARTS, expected_parts
from stages.formats.pack import unpack
from stages.model.blueprint_from_names import natural
from stages.model.meta_model import NO_MODEL
from stages.schemes.protocols import ModuleFormat
from stages.verify.transformers_load import Conversions, Loading, Problem
from stages.weights.dtypes import dtype_name, torch_dtype

COUNT = 2
SIDE = 256
"""Rows and columns of the experts that are tried: blocks and groups fit into them."""
TOLERANCE = 0.02
"""Relative to the largest weight; what two ways of rounding to bfloat16 differ by is below."""
DIGITS = re.compile(r"\d+")


def expert_problems(
    loading: Loading, plain: Conversions, quantized: Mapping[str, ModuleFormat]
) -> Iterator[Problem]:
    """Parameters that merge compressed modules into other weights than these stand for.

    `plain`: of the model without a quantizer; `quantized` maps modules, by their names on disk, to
    their formats. Layers of one kind are
    tried once.
    """
    tried: dict[object, str] = {}
    for target, sources in loading.merged.items():
        modules = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in sources))
        chosen = list(some(module for module in modules if module in quantized))
        if not chosen:
            continue
        parts = frozenset(name.rpartition(".")[2] for name, _ in sources)
        formats = {str(_key(quantized[module])) for module in chosen}
        kind = (DIGITS.sub("*", target), parts, *sorted(formats))
        if kind not in tried:
            tried[kind] = _try(loading, plain, {module: quantized[module] for module in chosen})
        if tried[kind]:
            yield Problem(name=target, text=f"{target}: {tried[kind]}")


def some(modules: Iterable[str]) -> Iterator[str]:
    """The first modules of each name but for numbers: two experts' gate, up and down."""
    seen: dict[str, int] = {}
    for module in modules:
        kind = DIGITS.sub("*", module)
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= COUNT:
            yield module


def _key(scheme: ModuleFormat) -> object:
    return as_compressed_tensors(scheme).model_dump_json(exclude={"targets"})


def _try(loading: Loading, plain: Conversions, modules: Mapping[str, ModuleFormat]) -> str:
    """Why transformers reads other weights than those stored; "" where it reads these."""
    dtype = loading.conversions.model.dtype
    stored: dict[str, Tensor] = {}
    dense: dict[str, Tensor] = {}
    for index, (module, scheme) in enumerate(modules.items()):
        parts = random_parts(scheme, dtype, seed=index)
        stored |= {f"{module}.{part}": tensor for part, tensor in parts.items()}
        weights = {part: tensor for part, tensor in parts.items() if part not in INPUT_PARTS}
        dense[f"{module}.weight"] = unpack(weights, as_compressed_tensors(scheme)).to(dtype)
    wanted = merged_by(plain, dense)
    try:
        found = merged_by(loading.conversions, stored)
    except NO_MODEL as error:
        return f"{type(error).__name__}: {error}"
    for name, weight in wanted.items():
        if name not in found or found[name].shape != weight.shape:
            return "compressed experts are not read"
        far = (found[name].float() - weight.float()).abs().max()
        if not bool(far <= TOLERANCE * weight.float().abs().max()):
            return "compressed experts are read as other weights than those stored"
    return ""


def merged_by(conversions: Conversions, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters that converters make of tensors by name, without those that none takes."""
    work: dict[str, WeightConverter] = {}
    for name in sorted(tensors, key=natural):
        target, pattern = conversions.target(name)
        if pattern is not None and target in conversions.state:
            converter = work.setdefault(target, deepcopy(conversions.converter(pattern)))
            read: Future[Tensor] = Future()
            read.set_result(tensors[name])
            converter.add_tensor(target, name, pattern, read)
    made: dict[str, Tensor] = {}
    model = conversions.model
    for target, converter in work.items():
        merged = converter.convert(
            target, model=model, config=model.config, hf_quantizer=conversions.quantizer
        )
        made |= {
            name: value[0] if isinstance(value, list) else value for name, value in merged.items()
        }
    return made


def random_parts(scheme: ModuleFormat, dtype: torch.dtype, *, seed: int) -> dict[str, Tensor]:
    """Tensors of a compressed weight [SIDE, SIDE] with random codes, in a model of a dtype."""
    generator = torch.Generator().manual_seed(seed)
    args = scheme.weights
    width = max(SIDE, 2 * (args.group_size or 0)) if args is not None else SIDE
    bits = args.num_bits if args is not None else 8
    made: dict[str, Tensor] = {}
    for part, (shape, name) in expected_parts(scheme, (SIDE, width), dtype_name(dtype)).items():
        kind = torch_dtype(name)
        uniform = torch.rand(shape, generator=generator)
        if part == "weight_shape":
            made[part] = torch.tensor([SIDE, width], dtype=kind)
        elif part == "weight_global_scale":
            made[part] = torch.full(shape, 512.0, dtype=kind)
        elif part.endswith("scale") and kind is torch.uint8:
            made[part] = (124 + 6 * uniform).to(kind)
        elif part.endswith("scale"):
            made[part] = (0.5 + uniform).to(kind)
        elif kind is torch.int8:
            made[part] = ((uniform - 0.5) * 2**bits).floor().to(kind)
        elif kind.is_floating_point:
            made[part] = (8 * uniform - 4).to(kind)
        else:
            low, high = torch.iinfo(kind).min, torch.iinfo(kind).max
            made[part] = torch.randint(low, high, shape, generator=generator, dtype=kind)
    return made
