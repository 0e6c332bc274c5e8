"""Pack a solver's codes into the tensors of a checkpoint, and unpack those to a weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from torch import Tensor

from pipeline.errors import UserError
from stages.formats.codes import code_dtype, e8m0_of, to_e4m3
from stages.formats.fp4_packing import FORMATS, bytes_of_codes
from stages.formats.fp6_packing import FORMAT as FP6
from stages.formats.fp6_packing import bytes_of_values
from stages.formats.input_params import InputParams
from stages.formats.int_packing import words_of_codes
from stages.formats.row_blocks import by_rows, decompress_by_rows
from stages.schemes.layouts import PACKED, codes_part, words_in
from stages.schemes.protocols import WeightFormat

MICROSCALED = ("mxfp4-pack-quantized", FP6, "mxfp8-quantized")


def pack(
    codes: Tensor,
    *,
    scale: Tensor,
    zero_point: Tensor | None,
    global_scale: Tensor | None,
    inputs: InputParams,
    scheme: QuantizationScheme,
) -> dict[str, Tensor]:
    """The tensors of a Linear in a checkpoint by local name (`weight_packed`, `weight_scale`, ...).

    codes: [out, in] as :func:`stages.formats.codes.code_dtype` says; scale, zero_point and
    global_scale as `stages.compress.grid.Quantized` has them. All are on one device, and so is what
    is made of them. The bias is left out. `scheme.format` names the layout. Raises ValueError for
    codes of another dtype.
    """
    compressor(scheme)
    args, layout = scheme.weights, str(scheme.format)
    if args is None or codes.dtype != code_dtype(args):
        raise ValueError(f"codes of {codes.dtype} are none of the layout {layout}")
    given = {
        "weight_scale": _stored_scale(scale, layout),
        "weight_zero_point": _stored_zero(zero_point, args, layout),
        "weight_global_scale": global_scale,
        "input_scale": inputs.scale,
        "input_zero_point": inputs.zero_point,
        "input_global_scale": inputs.global_scale,
    }
    if layout == PACKED:
        given["weight_packed"] = _words(codes, args.num_bits)
        given["weight_shape"] = torch.tensor(codes.shape)
    elif layout in FORMATS:
        given["weight_packed"] = bytes_of_codes(codes)
    elif layout == FP6:
        given["weight_packed"] = bytes_of_values(codes)
    else:
        given[codes_part(layout)] = codes
    return {part: t.detach().contiguous() for part, t in given.items() if t is not None}


def unpack(tensors: Mapping[str, Tensor], scheme: QuantizationScheme) -> Tensor:
    """The dequantized weight [out, in] of the tensors that :func:`pack` gives.

    Its dtype is that of `stages.formats.checksums.unpacked_dtype`. Raises KeyError if a tensor
    of the layout is missing.
    """
    library, args = compressor(scheme), scheme.weights

    def decompress(part: dict[str, Tensor]) -> Tensor:
        weight: Tensor = library.decompress(part, scheme)["weight"]
        return weight.detach()

    packed = tensors.get("weight_packed", tensors.get("weight"))
    ordered = "weight_g_idx" not in tensors  # with act-order, columns of any place share scales
    rows = packed is not None and packed.is_cpu and packed.dim() == 2 and len(packed) > 0
    if args is not None and ordered and rows:
        return decompress_by_rows(tensors, args, decompress)
    return decompress(dict(tensors))


def compressor(scheme: QuantizationScheme) -> type[BaseCompressor]:
    """The compressed-tensors class for `scheme.format`; UserError if it has none."""
    known = BaseCompressor.registered_names()
    # its registry would import any module that a name with a colon gives
    if (name := str(scheme.format)) not in known:
        raise UserError(
            f"quantization_config has weights in the format {name!r}",
            remedy=f"what is read: {', '.join(known)}",
        )
    found: type[BaseCompressor] = BaseCompressor.get_value_from_registry(name)
    return found


def _words(codes: Tensor, num_bits: int) -> Tensor:
    """Integer codes packed into words, some rows at a time on a CPU."""
    shape = (codes.shape[0], words_in(codes.shape[1], num_bits))
    words = torch.empty(shape, dtype=torch.int32, device=codes.device)

    def tile(start: int, stop: int) -> None:
        words[start:stop] = words_of_codes(codes[start:stop], num_bits)

    by_rows(codes, tile)
    return words


def _stored_scale(scale: Tensor, layout: str) -> Tensor:
    if layout in MICROSCALED:
        return e8m0_of(scale)
    return to_e4m3(scale) if layout in FORMATS else scale


def _stored_zero(zero_point: Tensor | None, args: WeightFormat, layout: str) -> Tensor | None:
    """Zero points as they are stored: along rows packed into words where codes are, else int8."""
    if zero_point is None or args.symmetric:
        return None
    if layout == PACKED and args.strategy in ("channel", "group"):
        return words_of_codes(zero_point.T, args.num_bits).T
    return zero_point
