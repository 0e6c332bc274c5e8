"""Pack a solver's result into the tensors of a checkpoint, and unpack them to a weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.mx_utils import compress_mx_scale
from compressed_tensors.compressors.pack_quantized import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import quantize
from torch import Tensor

from pipeline.errors import UserError
from stages.formats.fp4_packing import FORMATS, fits_fp4, fp4_of
from stages.formats.input_params import InputParams
from stages.formats.int_packing import words_of, words_of_codes
from stages.formats.row_blocks import by_rows, compress_by_rows, decompress_by_rows
from stages.schemes.layouts import PACKED, words_in


def pack(
    weight: Tensor,
    *,
    scale: Tensor,
    zero_point: Tensor | None,
    global_scale: Tensor | None,
    inputs: InputParams,
    scheme: QuantizationScheme,
) -> dict[str, Tensor]:
    """The tensors of a Linear in a checkpoint by local name (`weight_packed`, `weight_scale`, ...).

    weight: [out, in]; it is rounded to the grid of scale, zero_point and global_scale, on which a
    solver's result lies already. The bias is left out. `scheme.format` names the layout.
    """
    state = {
        "weight": weight,
        "weight_scale": scale,
        "weight_zero_point": zero_point,
        "weight_global_scale": global_scale,
        "input_scale": inputs.scale,
        "input_zero_point": inputs.zero_point,
        "input_global_scale": inputs.global_scale,
    }
    given = {name: value for name, value in state.items() if value is not None}
    args = scheme.weights
    rows = args is not None and args.strategy in ("channel", "group")
    if args is not None and rows and weight.is_cpu and str(scheme.format) == PACKED:
        return _packed(given, args)
    if args is not None and str(scheme.format) in FORMATS and fits_fp4(weight, args):
        return _fp4(given, args)
    library = compressor(scheme)
    if args is not None and str(scheme.format) != PACKED:
        stored = compress_by_rows(given, args, lambda part: library.compress(part, scheme))
    else:
        stored = library.compress(given, scheme)
    return {name: value.detach().contiguous() for name, value in stored.items()}


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


def _packed(given: dict[str, Tensor], args: QuantizationArgs) -> dict[str, Tensor]:
    """Integer codes packed into words: the tensors of compressed-tensors, computed faster."""
    weight, zero_point = given.pop("weight"), given.pop("weight_zero_point", None)
    scale, bits = given["weight_scale"], args.num_bits
    words = torch.empty((weight.shape[0], words_in(weight.shape[1], bits)), dtype=torch.int32)

    def tile(start: int, stop: int) -> None:
        part, scales = weight[start:stop], scale[start:stop]
        zeros = None if zero_point is None else zero_point[start:stop]
        if part.dtype == torch.float32:
            words[start:stop] = words_of(part, scales, zeros, bits)
        else:  # the quotient is rounded to the narrower dtype first
            codes = quantize(x=part, scale=scales, zero_point=zeros, args=args, dtype=torch.int8)
            words[start:stop] = words_of_codes(codes, bits)

    by_rows(weight, tile, args)
    if zero_point is not None and not args.symmetric:
        packed = pack_to_int32(zero_point, args.num_bits, packed_dim=0)
        given["weight_zero_point"] = packed.contiguous()
    shape = torch.tensor(weight.shape)
    return {**given, "weight_packed": words, "weight_shape": shape}


def _fp4(given: dict[str, Tensor], args: QuantizationArgs) -> dict[str, Tensor]:
    """FP4 codes packed into bytes: the tensors of compressed-tensors, computed faster."""
    weight, scale = given.pop("weight"), given.pop("weight_scale")
    packed = torch.empty((weight.shape[0], weight.shape[1] // 2), dtype=torch.uint8)
    global_scale = given.get("weight_global_scale")

    def tile(start: int, stop: int) -> None:
        packed[start:stop] = fp4_of(weight[start:stop], scale[start:stop], global_scale)

    by_rows(weight, tile, args)
    if args.scale_dtype == torch.float8_e4m3fn:
        stored = scale.to(torch.float8_e4m3fn)
    else:
        stored = compress_mx_scale(scale, torch.uint8)
    return {**given, "weight_packed": packed, "weight_scale": stored.contiguous()}
