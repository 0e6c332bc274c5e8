"""Find NaN and infinity in the tensors of safetensors files, at about the speed of reading them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.source import TensorSpec

THREADS = min(4, os.cpu_count() or 1)
MASK = re.compile(r"(?:^|[._])(?:causal_|attn_|attention_)?mask(?:[._]|$)")
"""Buffers whose infinities mean that something is not attended to."""

NAMED = 5
"""Tensors that an error names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bits:
    """Bit patterns of a float type as unsigned integers of `width` bytes, without the sign.

    `infinite` is that of infinity, or None; every larger one than `largest` is not finite.
    """

    width: int
    largest: int
    infinite: int | None


FLOATS: Mapping[str, Bits] = {
    "F64": Bits(width=8, largest=0x7FEFFFFFFFFFFFFF, infinite=0x7FF0000000000000),
    "F32": Bits(width=4, largest=0x7F7FFFFF, infinite=0x7F800000),
    "F16": Bits(width=2, largest=0x7BFF, infinite=0x7C00),
    "BF16": Bits(width=2, largest=0x7F7F, infinite=0x7F80),
    "F8_E5M2": Bits(width=1, largest=0x7B, infinite=0x7C),
    "F8_E4M3": Bits(width=1, largest=0x7E, infinite=None),
}
EXPONENT_NAN = 0xFF
"""The one value of E8M0 that is no number."""


def check_finite(source: SafetensorsSource, *, progress: Callable[[float], None]) -> None:
    """Raise UserError that names the tensors of `source` which hold a NaN or an infinity.

    All bytes are read, some threads at a time, a piece of a tensor each. `progress` is given the
    share of the bytes that is done.
    """
    specs = [spec for spec in source.specs().values() if not MASK.search(spec.name)]
    total, done = sum(spec.bytes for spec in specs) or 1, 0
    found: list[str] = []
    with ThreadPoolExecutor(THREADS) as pool:
        judged = pool.map(lambda spec: _wrong(source, spec), specs)
        for spec, wrong in zip(specs, judged, strict=True):
            found += [] if wrong is None else [f"{spec.name} has {wrong}"]
            done += spec.bytes
            progress(done / total)
    refuse(found)


def refuse(found: Sequence[str]) -> None:
    """Raise UserError for tensors that are not finite, each in words, if there are any."""
    if found:
        more = f", and {len(found) - NAMED} tensors more" if len(found) > NAMED else ""
        raise UserError(
            f"the model has weights that are not finite: {'; '.join(found[:NAMED])}{more}",
            remedy="fetch or convert the model again: nothing that it computes is a number",
        )


def _wrong(source: SafetensorsSource, spec: TensorSpec) -> str | None:
    """The first entry that is not finite, in words."""
    for index, kind in _not_finite(source, spec):
        place = ", ".join(str(i) for i in np.unravel_index(index, spec.shape)) if spec.shape else ""
        return f"{kind} at [{place}]"
    return None


def _not_finite(source: SafetensorsSource, spec: TensorSpec) -> Iterator[tuple[int, str]]:
    """Flat index and kind of the first entry that is not finite of every piece that has one."""
    before = 0
    if spec.dtype in FLOATS:
        width = FLOATS[spec.dtype].width
        for piece in source.pieces(spec.name):
            values = np.frombuffer(piece, dtype=f"<u{width}")
            found = _in_floats(values, FLOATS[spec.dtype])
            if found is not None:
                yield before + found[0], found[1]
            before += len(values)
    elif spec.dtype == "F8_E8M0":
        for piece in source.pieces(spec.name):
            exponents = np.frombuffer(piece, dtype=np.uint8)
            if len(exponents) and exponents.max() == EXPONENT_NAN:
                yield before + int(exponents.argmax()), "NaN"
            before += len(exponents)


def _in_floats(values: NDArray[np.unsignedinteger[Any]], bits: Bits) -> tuple[int, str] | None:
    """Index and kind of the first of some floats, given as bit patterns, that is not finite.

    Of those with a sign bit, the ones that are not finite are the largest as unsigned integers; of
    those without, the largest as signed ones: two passes, at the speed of a cache.
    """
    if not len(values):
        return None
    sign = 1 << (8 * bits.width - 1)
    signed = values.view(f"<i{bits.width}")
    if int(values.max()) <= sign | bits.largest and int(signed.max()) <= bits.largest:
        return None
    size = values & values.dtype.type(sign - 1)
    at = int((size > bits.largest).argmax())
    return at, "infinity" if int(size[at]) == bits.infinite else "NaN"
