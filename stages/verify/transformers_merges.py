"""Dense weights that transformers merges while loading, beside compressed ones: small ones tried.

transformers 5.24 hands the converters of a model to the quantizer, which adds the names of
compressed weights to them and dequantizes first; a dense weight is lost on the way where the format
has no tensor called `weight` (the convolutions of Kimi Linear in a checkpoint with packed codes).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from stages.model.meta_model import NO_MODEL
from stages.schemes.protocols import ModuleFormat
from stages.verify.transformers_experts import DIGITS, merged_by, some
from stages.verify.transformers_load import Conversions, Loading, Problem
from stages.weights import TensorSpec

SIDE = 4
"""At most so many entries of each dimension are tried."""
KIND = "dense weights that are merged while loading, beside compressed ones"


def dense_merge_problems(
    loading: Loading,
    plain: Conversions,
    specs: Mapping[str, TensorSpec],
    quantized: Mapping[str, ModuleFormat],
) -> Iterator[Problem]:
    """Parameters that merge dense tensors into others than a dense checkpoint's would be.

    `plain`: of the model without a quantizer. One may merge compressed ones too: LongCat's experts
    that compute nothing stay dense among the others. Layers of one kind are tried once. Where small
    tensors cannot be merged in a dense model either, nothing is said.
    """
    tried: dict[str, str] = {}
    for target, sources in loading.merged.items():
        names = [name for name, _ in sources if name.rpartition(".")[0] not in quantized]
        if not names:
            continue
        kind = DIGITS.sub("*", target)
        if kind not in tried:
            tried[kind] = _try(loading, plain, {name: specs[name] for name in some(names)})
        if tried[kind]:
            yield Problem(name=target, text=f"{target}: {tried[kind]}", kind=KIND)


def _try(loading: Loading, plain: Conversions, specs: Mapping[str, TensorSpec]) -> str:
    """Why transformers reads other weights than a dense model's; "" where it reads these."""
    generator = torch.Generator().manual_seed(0)
    dtype = loading.conversions.model.dtype
    tensors = {
        name: torch.rand([min(SIDE, size) for size in spec.shape], generator=generator).to(dtype)
        for name, spec in specs.items()
    }
    try:
        wanted = merged_by(plain, tensors)
    except NO_MODEL:
        return ""
    try:
        found = merged_by(loading.conversions, tensors)
    except NO_MODEL as error:
        return f"{type(error).__name__}: {error}"
    same = all(name in found and torch.equal(found[name], wanted[name]) for name in wanted)
    return "" if same else "dense weights are read as others than those stored"
