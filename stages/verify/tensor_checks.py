"""Checks of tensors, one module at a time: checksums of weights, unchanged tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError
from stages.formats.checksums import checksum, stored_sums
from stages.formats.layer_artifact import CHECKSUM
from stages.formats.module_tensors import INPUT_PARTS, MISFITS, main_part, stored_parts
from stages.verify.checkpoint_under_test import Subject
from stages.weights import WeightSource
from stages.weights.row_bands import matrix_of
from stages.weights.safetensors_file import Scratch
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.writer import pieces

WORKERS = min(4, os.cpu_count() or 1)
"""Weights that are read concurrently; reading and summing release the interpreter lock."""


def check_weights(subject: Subject) -> Iterator[str]:
    """Every module unpacks to the weight that the solver chose."""
    if subject.claims is None:
        return
    todo = []
    for layer, info in zip(subject.layers, subject.layer_info(), strict=True):
        path = layer.file(CHECKSUM)
        sums = SafetensorsSource.of_file(path)
        for module in info["modules"].values():
            if module["prefix"] in subject.quantized:  # the check of names reports others
                todo.append((module["prefix"], sums))

    spare: SimpleQueue[Scratch] = SimpleQueue()
    for _ in range(WORKERS):
        spare.put(Scratch())

    def check(item: tuple[str, WeightSource]) -> str | None:
        scratch = spare.get()
        try:
            return _wrong(item[0], subject, item[1], scratch)
        finally:
            spare.put(scratch)

    with ThreadPoolExecutor(WORKERS) as pool:
        yield from (wrong for wrong in pool.map(check, todo) if wrong is not None)


def check_plain(subject: Subject) -> Iterator[str]:
    """Every weight that a solver chose is saved dense, in the model's dtype."""
    from stages.formats.compressed_layer import CompressedLayer

    for artifact in subject.layers:
        path = artifact.file(CHECKSUM)
        sums = SafetensorsSource.of_file(path)
        for prefix, scheme in CompressedLayer(artifact).weights.schemes.items():
            name = f"{prefix}.weight"
            if name not in subject.specs:
                continue  # the check of names reports it
            weight = subject.saved.read([name])[name]
            found = checksum(weight.float(), scheme, subject.dtype)
            chosen = sums.read([f"{prefix}.{side}" for side in found])
            if any(differs(found[side], chosen[f"{prefix}.{side}"]) for side in found):
                yield f"{name} is another weight than the solver chose"


def check_dense(subject: Subject) -> Iterator[str]:
    """Tensors that neither a solver nor a transform changed have the original's bytes."""
    changed = {name for info in subject.layer_info() for name in info["changed"]}
    chosen = subject.chosen() if subject.plain else set(subject.quantized)
    for name in subject.specs:
        prefix = name.rpartition(".")[0]
        if prefix in chosen and not name.endswith(".bias"):
            continue
        if name in changed or name not in subject.original:
            continue
        try:
            if not _same(subject, name):
                yield f"{name} differs from the original"
        except UserError as error:
            yield str(error)


def differs(found: Tensor, chosen: Tensor) -> bool:
    """Whether checksums of a stored weight differ from those of the solver's."""
    return not torch.equal(found, chosen)


def equal_bytes(one: Iterator[memoryview], other: Iterator[memoryview]) -> bool:
    """Whether two sequences of bytes are equal, however each is split into pieces."""
    first, second = memoryview(b""), memoryview(b"")
    while True:
        first = first if len(first) else next(one, first)
        second = second if len(second) else next(other, second)
        count = min(len(first), len(second))
        if count == 0:
            return len(first) == len(second)
        if not np.array_equal(
            np.frombuffer(first[:count], np.uint8), np.frombuffer(second[:count], np.uint8)
        ):
            return False
        first, second = first[count:], second[count:]


def _wrong(prefix: str, subject: Subject, sums: WeightSource, scratch: Scratch) -> str | None:
    try:
        found = _sums(prefix, subject, scratch)
    except MISFITS as error:
        return f"{prefix} cannot be unpacked: {type(error).__name__}: {error}"
    chosen = sums.read([f"{prefix}.{side}" for side in found])
    if any(differs(found[side], chosen[f"{prefix}.{side}"]) for side in found):
        return f"{prefix} unpacks to another weight than the solver chose"
    return None


def _sums(prefix: str, subject: Subject, scratch: Scratch) -> dict[str, Tensor]:
    scheme, main = subject.quantized[prefix], main_part(subject.specs, prefix)
    if main is None:
        raise KeyError("neither weight nor weight_packed is a matrix")
    matrix = matrix_of(subject.saved, subject.specs[main], scratch)
    stored = stored_parts(subject.saved, subject.specs, prefix, but=main)
    parts = {part: tensor for part, tensor in stored.items() if part not in INPUT_PARTS}
    found = stored_sums(matrix, parts, scheme, subject.dtype) if subject.codes else None
    if found is not None:
        return found
    from stages.formats.compressed_tensors_bridge import as_compressed_tensors
    from stages.formats.pack import unpack

    parts[main.rpartition(".")[2]] = matrix.read(0, matrix.shape[0])
    return checksum(unpack(parts, as_compressed_tensors(scheme)), scheme, subject.dtype)


def _same(subject: Subject, name: str) -> bool:
    """Whether a tensor equals the original's to the byte, so that NaN equals itself."""
    saved, original = subject.specs[name], subject.original[name]
    if (saved.shape, saved.dtype) != (original.shape, original.dtype):
        return False
    return equal_bytes(pieces(subject.saved, name), pieces(subject.source, name))
