"""One Linear between a solver's result and the tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.pack_quantized import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from torch import Tensor

from pipeline.errors import UserError
from stages.formats.words import words_of


@dataclass(frozen=True, kw_only=True, slots=True)
class InputParams:
    """Calibrated parameters of a module's input; None where its format has no such tensor.

    scale: [1] in the model's dtype; zero_point: int8 [1]; global_scale: float32 [1].
    """

    scale: Tensor | None = None
    zero_point: Tensor | None = None
    global_scale: Tensor | None = None


def pack(
    weight: Tensor,
    *,
    scale: Tensor,
    zero_point: Tensor | None,
    global_scale: Tensor | None,
    inputs: InputParams,
    scheme: QuantizationScheme,
) -> dict[str, Tensor]:
    """The checkpoint's tensors of a Linear by local name (`weight_packed`, `weight_scale`, ...).

    weight: [out, in], rounded to the grid that scale, zero_point and global_scale span; a solver's
    result lies on it already. The bias is not part of it. `scheme.format` names the layout.
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
    plain = weight.is_cpu and weight.dtype == torch.float32
    if args is not None and rows and plain and str(scheme.format) == "pack-quantized":
        return _packed(given, args)
    stored = compressor(scheme).compress(given, scheme)
    return {name: value.detach().contiguous() for name, value in stored.items()}


def _packed(given: dict[str, Tensor], args: QuantizationArgs) -> dict[str, Tensor]:
    """What compressed-tensors makes of integers in words, sooner."""
    weight, zero_point = given.pop("weight"), given.pop("weight_zero_point", None)
    words = words_of(weight, given["weight_scale"], zero_point, args.num_bits)
    if zero_point is not None and not args.symmetric:
        packed = pack_to_int32(zero_point, args.num_bits, packed_dim=0)
        given["weight_zero_point"] = packed.contiguous()
    shape = torch.tensor(weight.shape)
    return {**given, "weight_packed": words, "weight_shape": shape}


def unpack(tensors: Mapping[str, Tensor], scheme: QuantizationScheme) -> Tensor:
    """The weight [out, in] that the tensors of :func:`pack` stand for.

    Its dtype is what `stages.formats.checksum.unpacked_dtype` tells. Raises KeyError where a tensor
    of the layout is missing.
    """
    weight: Tensor = compressor(scheme).decompress(dict(tensors), scheme)["weight"]
    return weight.detach()


def compressor(scheme: QuantizationScheme) -> type[BaseCompressor]:
    """The compressed-tensors class that reads and writes `scheme.format`; UserError for others."""
    known = BaseCompressor.registered_names()
    # its registry would import whatever a name with a colon says
    if (name := str(scheme.format)) not in known:
        raise UserError(
            f"quantization_config has weights in the format {name!r}",
            remedy=f"what is read: {', '.join(known)}",
        )
    found: type[BaseCompressor] = BaseCompressor.get_value_from_registry(name)
    return found
