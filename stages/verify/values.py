"""Checks that read tensors, one module at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from compressed_tensors.quantization import QuantizationScheme
from torch import Tensor

from pipeline.errors import UserError
from stages.formats.cache import STATES
from stages.formats.decompress import INPUT_PARTS
from stages.formats.layer import CHECKSUM
from stages.formats.pack import unpack
from stages.formats.stored import stored_sums
from stages.verify.subject import Stored, Subject
from stages.weights import WeightSource
from stages.weights.folder import Layout
from stages.weights.safetensors_source import SafetensorsSource

SCALES = ("weight_scale", "weight_global_scale", "input_scale", "input_global_scale")
STATE_SCALES = {f"{state}_{part}" for state in STATES for part in ("scale", "global_scale")}


def check_scales(subject: Stored) -> Iterator[str]:
    """Every scale is finite and positive; exponents of MX scales are not the one that says NaN."""
    wanted = [[f"{prefix}.{part}" for part in SCALES] for prefix in subject.quantized]
    states = [name for name in subject.specs if name.rpartition(".")[2] in STATE_SCALES]
    for names in (*wanted, states):
        there = [name for name in names if name in subject.specs]
        for name, scale in subject.saved.read(there).items():
            if scale.dtype == torch.uint8:
                if bool((scale == 255).any()):
                    yield f"{name} has an exponent that means NaN"
                continue
            values = scale.float()
            if not bool(torch.isfinite(values).all()):
                yield f"{name} has non-finite entries"
            elif not bool((values > 0).all()):
                yield f"{name} has entries that are not positive"


def check_weights(subject: Subject) -> Iterator[str]:
    """compressed-tensors unpacks every module to the weight that the solver chose."""
    if subject.config is None:
        return
    dense = subject.dense()
    for layer, info in zip(subject.layers, subject.layer_info(), strict=True):
        path = layer.file(CHECKSUM)
        sums = SafetensorsSource(Layout(where=str(path), files={CHECKSUM: path}, tensors=None))
        for module in info["modules"].values():
            prefix = module["prefix"]
            if prefix not in subject.quantized:
                continue  # the check of names tells it
            wrong = _wrong(dense.stored(prefix), subject, sums, prefix)
            if wrong is not None:
                yield wrong


def _wrong(
    stored: Mapping[str, Tensor], subject: Subject, sums: WeightSource, prefix: str
) -> str | None:
    own = {part: tensor for part, tensor in stored.items() if part not in INPUT_PARTS}
    try:
        found = stored_sums(own, subject.quantized[prefix], subject.dtype)
    except (KeyError, ValueError, RuntimeError, AssertionError) as error:
        return f"{prefix} cannot be unpacked: {type(error).__name__}: {error}"
    chosen = sums.read([f"{prefix}.{side}" for side in found])
    if any(differs(found[side], chosen[f"{prefix}.{side}"]) for side in found):
        return f"{prefix} unpacks to another weight than the solver chose"
    return None


def unpacked(stored: Mapping[str, Tensor], scheme: QuantizationScheme) -> Tensor | str:
    """The weight that a module's tensors stand for, or why compressed-tensors cannot tell."""
    own = {part: tensor for part, tensor in stored.items() if part not in INPUT_PARTS}
    try:
        return unpack(own, scheme)
    except (KeyError, ValueError, RuntimeError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"


def differs(found: Tensor, chosen: Tensor) -> bool:
    """Whether sums of what was found are not those of what was chosen."""
    return not torch.equal(found, chosen)


def check_dense(subject: Subject) -> Iterator[str]:
    """What neither a solver nor a transform touched has the original's bytes."""
    changed = {name for info in subject.layer_info() for name in info["changed"]}
    chosen = subject.chosen() if subject.plain else set(subject.quantized)
    for name in subject.specs:
        prefix = name.rpartition(".")[0]
        if prefix in chosen and not name.endswith(".bias"):
            continue
        if name in changed or name not in subject.original:
            continue
        try:
            mine = subject.saved.read([name])[name]
        except UserError as error:
            yield str(error)
            continue
        theirs = subject.source.read([name])[name]
        same = mine.shape == theirs.shape and mine.dtype == theirs.dtype
        if not same or not torch.equal(_bytes(mine), _bytes(theirs)):
            yield f"{name} differs from the original"


def _bytes(tensor: Tensor) -> Tensor:
    """Its bytes: NaN equals itself, and no dtype is too exotic to compare."""
    return tensor.contiguous().flatten().view(torch.uint8)
