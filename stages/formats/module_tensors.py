"""Tensors of one compressed module in a checkpoint: their names, shapes and dtypes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from stages.schemes.layouts import MAIN, PACKED, is_plain, plain_parts, words_in
from stages.schemes.protocols import ModuleFormat, WeightFormat, scale_shape
from stages.weights import TensorSpec, WeightSource

PARTS = (
    "weight",
    "weight_packed",
    "weight_scale",
    "weight_zero_point",
    "weight_global_scale",
    "weight_shape",
    "weight_g_idx",
)
INPUT_PARTS = ("input_scale", "input_zero_point", "input_global_scale")
MISFITS = (
    *(KeyError, IndexError, AttributeError),  # tensors that are missing, or of too few dimensions
    *(TypeError, ValueError, RuntimeError, AssertionError),  # shapes and dtypes that do not fit
)
"""Exceptions that unpacking raises for tensors that do not fit their format."""

Expected = tuple[tuple[int, ...], str]
"""Shape, and dtype as safetensors names it."""


def expected_parts(scheme: ModuleFormat, shape: tuple[int, ...], dtype: str) -> dict[str, Expected]:
    """Local name -> (shape, dtype) of every tensor of a compressed weight [out, in].

    `dtype` is the model's, as safetensors names it. The names are those that the compressor of the
    format in compressed-tensors lists, and those of calibrated inputs.
    """
    weights, layout = scheme.weights, str(scheme.format)
    if weights is None:
        return {"weight": (shape, dtype)}
    if is_plain(shape, weights, layout):
        parts = plain_parts(shape, weights, layout, dtype)
    else:
        parts = _listed(scheme, weights, shape, dtype)
    return parts | _inputs(scheme, dtype)


def kept_wide(name: str, dtype: str, scheme: ModuleFormat | None) -> bool:
    """Whether a tensor is a scale in a dtype of its own, which is valid whatever the model's is.

    Engines hold scales of FP8 in float32, and a checkpoint converted from one that has them so
    keeps them; scales of integers in float16 are kept likewise, though readers cast these.
    """
    if scheme is None or not name.endswith(("weight_scale", "input_scale")):
        return False
    if dtype == "F32":
        return str(scheme.format) == "float-quantized"
    integers = scheme.weights is not None and scheme.weights.type == "int"
    return dtype == "F16" and integers and name.endswith("weight_scale")


def stored_parts(
    source: WeightSource,
    specs: Mapping[str, TensorSpec],
    prefix: str,
    *,
    device: str = "cpu",
    but: str | None = None,
) -> dict[str, Tensor]:
    """The tensors of one compressed module as they are stored, by local name, without bias.

    `specs` are those of `source`; the tensor whose full name is `but` is left out.
    """
    names = [f"{prefix}.{part}" for part in (*PARTS, *INPUT_PARTS)]
    tensors = source.read([n for n in names if n in specs and n != but], device=device)
    return {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}


def main_part(specs: Mapping[str, TensorSpec], prefix: str) -> str | None:
    """The name of the tensor with a module's codes; None if there is no such matrix."""
    names = (f"{prefix}.{part}" for part in MAIN)
    found = next((name for name in names if name in specs), None)
    return found if found is not None and len(specs[found].shape) == 2 else None


def _listed(
    scheme: ModuleFormat, weights: WeightFormat, shape: tuple[int, ...], dtype: str
) -> dict[str, Expected]:
    from stages.formats.compressed_tensors_bridge import as_compressed_tensors
    from stages.formats.pack import compressor

    library_scheme, layout = as_compressed_tensors(scheme), str(scheme.format)
    rows, columns = shape
    scales = scale_shape(weights, rows, columns)
    parts: dict[str, Expected] = {}
    for name in compressor(library_scheme).compression_param_names(library_scheme):
        if name == "weight_packed":
            packed = (rows, words_in(columns, weights.num_bits))
            bytes_of = (rows, columns * weights.num_bits // 8)
            parts[name] = (packed, "I32") if layout == PACKED else (bytes_of, "U8")
        elif name == "weight":
            parts[name] = (shape, "I8" if weights.type == "int" else "F8_E4M3")
        elif name == "weight_scale":
            parts[name] = (scales, _scale_dtype(scheme, dtype))
        elif name == "weight_shape":
            parts[name] = ((2,), "I64")
        elif name == "weight_global_scale":
            parts[name] = ((1,), "F32")
        elif name == "weight_zero_point":
            parts[name] = _zero_point(scheme, rows, scales)
    return parts


def _scale_dtype(scheme: ModuleFormat, dtype: str) -> str:
    layout = str(scheme.format)
    if layout == "nvfp4-pack-quantized":
        return "F8_E4M3"
    return "U8" if layout.startswith("mx") else dtype


def _zero_point(scheme: ModuleFormat, rows: int, scales: tuple[int, ...]) -> Expected:
    weights = scheme.weights
    packed = str(scheme.format) == PACKED and len(scales) == 2
    if weights is None or not packed or weights.strategy == "block":
        return scales, "I8"
    return (words_in(rows, weights.num_bits), scales[1]), "I32"


def _inputs(scheme: ModuleFormat, dtype: str) -> dict[str, Expected]:
    inputs = scheme.input_activations
    if inputs is None or inputs.dynamic is True:
        return {}
    if inputs.dynamic == "local":
        return {"input_global_scale": ((1,), "F32")}
    parts: dict[str, Expected] = {"input_scale": ((1,), dtype)}
    if not inputs.symmetric:
        parts["input_zero_point"] = ((1,), "I8")
    return parts
