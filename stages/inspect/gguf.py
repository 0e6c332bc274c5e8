"""Inspect a GGUF file: types by tensor, block scales, zeros, and blocks without any weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.outside import PinnedFile
from stages.inspect.figures import Figures, of_scales
from stages.inspect.names import joined, pattern
from stages.weights.gguf_header import GgufHeader, GgufTensor, read_gguf_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK = 4_000_000
"""Weights that are decoded together."""
KNOWN = ("weights", "scales", "negative", "zero", "denormal", "wrong", "zeros", "least", "most")
"""The figures that are taken of a GGUF file."""
DENSE = frozenset({"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """Where a block's scale is: `count` numbers of numpy's `dtype`, `at` bytes into the block."""

    dtype: str
    at: int = 0
    count: int = 1
    name: str = "F16"


HALF = Scale(dtype="<f2")
SCALES = {
    **dict.fromkeys(("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "IQ4_NL", "IQ4_XS"), HALF),
    **dict.fromkeys(("Q4_K", "Q5_K", "Q1_0", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S"), HALF),
    **dict.fromkeys(("IQ3_S", "IQ2_S"), HALF),
    "Q2_K": Scale(dtype="<f2", at=80),
    "Q3_K": Scale(dtype="<f2", at=108),
    "Q6_K": Scale(dtype="<f2", at=208),
    "Q8_K": Scale(dtype="<f4", name="F32"),
    "TQ1_0": Scale(dtype="<f2", at=52),
    "TQ2_0": Scale(dtype="<f2", at=64),
    "MXFP4": Scale(dtype="u1", name="E8M0"),
    "NVFP4": Scale(dtype="u1", count=4, name="UE4M3"),
}
"""The (outer) scales of blocks by ggml's type; those of IQ1_M are spread over the block."""


@dataclass(slots=True)
class Found:
    """Figures of the tensors of one row."""

    type: str
    names: list[str]
    bytes: int = 0
    figures: Figures = field(default_factory=Figures)
    empty: int = 0
    decoded: bool = True


def inspect_gguf(path: Path, told: Callable[[float, str], None]) -> dict[str, Any]:
    """What is in a GGUF file: the same keys as of a folder. UserError for a malformed one."""
    header = read_gguf_header(path)
    rows: dict[tuple[str, str], Found] = {}
    dense: dict[tuple[str, str], list[GgufTensor]] = {}
    done = 0
    for name, tensor in header.tensors.items():
        told(done / max(1, header.size), name)
        done += tensor.length
        key = (pattern(name), tensor.type)
        if tensor.type in DENSE:
            dense.setdefault(key, []).append(tensor)
            continue
        row = rows.setdefault(key, Found(type=tensor.type, names=[]))
        row.names.append(name)
        row.bytes += tensor.length
        row.figures += Figures(weights=prod(tensor.shape))
        for blocks in _blocks(header, tensor):
            _look(row, blocks)
    found = list(rows.values())
    weights, size = sum(row.figures.weights for row in found), sum(row.bytes for row in found)
    return {
        "architecture": header.architecture,
        "method": "gguf",
        "stated_in": f"GGUF version {header.version}",
        "producers": [],
        "bytes": sum(tensor.length for tensor in header.tensors.values()),
        "quantized": {
            "modules": sum(len(row.names) for row in found),
            "weights": weights,
            "bytes": size,
            "bits_per_weight": 8 * size / weights if weights else None,
        },
        "rows": [_as_json(row) for row in found],
        "dense": [_dense(*each) for each in dense.items()],
        "conventions": list(_conventions(found)),
        "loads": _loads(),
        "notes": [
            f"{row.type} cannot be decoded by the installed gguf: zeros are not counted"
            for row in found
            if not row.decoded
        ],
    }


def _blocks(header: GgufHeader, tensor: GgufTensor) -> Iterator[NDArray[np.uint8]]:
    """The bytes of a tensor's blocks, [blocks, bytes of one], in runs."""
    import numpy as np
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    elements, width = GGML_QUANT_SIZES[GGMLQuantizationType[tensor.type]]
    step = max(1, CHUNK // elements) * width
    with PinnedFile(header.path, header.state).open() as file:
        file.seek(tensor.start)
        for start in range(0, tensor.length, step):
            data = file.read(min(step, tensor.length - start))
            whole = len(data) // width * width
            yield np.frombuffer(data[:whole], dtype=np.uint8).reshape(-1, width)


def _look(row: Found, blocks: NDArray[np.uint8]) -> None:
    """Add the figures of a run of blocks."""
    import numpy as np
    import torch
    from gguf import GGMLQuantizationType, dequantize

    try:
        with np.errstate(all="ignore"):
            none = dequantize(blocks, GGMLQuantizationType[row.type]) == 0
        row.figures += Figures(zeros=int(none.sum()))
        row.empty += int(none.all(axis=-1).sum())
    except NotImplementedError:  # gguf's own, for types that it only names
        row.decoded = False
    place = SCALES.get(row.type)
    if place is None:
        return
    width = np.dtype(place.dtype).itemsize * place.count
    raw = np.ascontiguousarray(blocks[:, place.at : place.at + width]).view(place.dtype)
    smallest = float(np.finfo(np.float16).tiny) if place.dtype == "<f2" else 0.0
    row.figures += of_scales(torch.from_numpy(_plain(raw, place)), smallest)


def _plain(raw: NDArray[Any], place: Scale) -> NDArray[np.float32]:
    """Scales in float32: E8M0 as ggml reads it for doubled codes, UE4M3 with 0 and 0x7F as 0."""
    import numpy as np

    if place.name == "E8M0":
        return np.ldexp(np.float32(1), raw.astype(np.int32) - 127).astype(np.float32)
    if place.name == "UE4M3":
        exponent, mantissa = (raw >> 3) & 15, (raw & 7).astype(np.float32)
        normal = np.ldexp(1 + mantissa / 8, exponent.astype(np.int32) - 7)
        plain = np.where(exponent == 0, np.ldexp(mantissa, -9), normal)
        return np.where((raw == 0) | (raw == 0x7F), 0, plain).astype(np.float32)
    return raw.astype(np.float32)


def _as_json(row: Found) -> dict[str, Any]:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    elements, _ = GGML_QUANT_SIZES[GGMLQuantizationType[row.type]]
    place, found = SCALES.get(row.type), row.figures
    return {
        "name": joined(row.names),
        "modules": row.names,
        "format": row.type,
        "layout": "gguf",
        "group_size": elements,
        "strategy": "group",
        "inputs": "not quantized",
        "scale_dtype": place.name if place is not None else "",
        "bytes": row.bytes,
        "bits_per_weight": 8 * row.bytes / found.weights if found.weights else None,
        **{name: getattr(found, name) for name in KNOWN},
        "empty": [{"value": "any", "count": row.empty}] if row.empty else [],
    }


def _dense(key: tuple[str, str], tensors: list[GgufTensor]) -> dict[str, Any]:
    return {
        "name": joined(tensor.name for tensor in tensors),
        "tensors": len(tensors),
        "dtype": key[1],
        "elements": sum(prod(tensor.shape) for tensor in tensors),
        "bytes": sum(tensor.length for tensor in tensors),
    }


def _conventions(rows: list[Found]) -> Iterator[dict[str, Any]]:
    signed = [row for row in rows if row.figures.negative]
    if signed:
        together = sum((row.figures for row in signed), Figures())
        share = together.negative / together.scales
        yield {
            "what": "signed scales: the lowest code is on the side that needs it",
            "evidence": f"{100 * share:.1f} % of the scales of {signed[0].type} are negative",
            "rows": [joined(row.names) for row in signed],
        }


def _loads() -> list[dict[str, Any]]:
    told = (
        ("presswork", True, "as a source: model=gguf model.path=FILE"),
        ("transformers", True, "by dequantizing it (gguf_file=)"),
        ("vLLM", False, "release 0.32 has no quantization method gguf"),
        ("llama.cpp", None, "its own format; which types depends on its release"),
    )
    return [{"engine": e, "version": "", "loads": loads, "why": why} for e, loads, why in told]
