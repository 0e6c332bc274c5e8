"""Checksums of compressed weights: of all that compressed-tensors unpacks, or from their codes.

With `edges` what compressed-tensors unpacks is compared on some rows of every weight; the other
rows differ from those in their codes and scales only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from numpy.typing import NDArray
from torch import Tensor

from stages.formats.pack import checksum, unpack
from stages.formats.plain import LAYOUTS, STRATEGIES, words_in
from stages.formats.sharing import spans
from stages.formats.sums import bit_sums, code_sums
from stages.formats.words import unpack_rows

SAMPLED = 64
"""About so many rows at the top and at the bottom of a weight go through compressed-tensors."""


def stored_sums(
    stored: Mapping[str, Tensor], scheme: QuantizationScheme, dtype: torch.dtype, *, edges: bool
) -> dict[str, Tensor]:
    """`bit_sums` of the weight that a module's stored tensors (by local name) stand for.

    compressed-tensors unpacks all of it, or with `edges` some rows of it where the format is a
    plain one. It is rounded to what readers unpack to for a model of `dtype`: scales may be wider
    than that. Raises KeyError or ValueError where the tensors do not fit the format, or where it
    and compressed-tensors do not read them alike.
    """
    args = scheme.weights
    if args is None or not edges or dtype != torch.bfloat16 or not _plain(stored, scheme, args):
        return checksum(unpack(stored, scheme), scheme, dtype)
    codes, table = _codes(stored, args)
    rows, columns = codes.shape
    height, width = spans(args, rows, columns)
    scale = stored["weight_scale"].float().reshape(-(-rows // height), -1)
    if scale.shape[1] != -(-columns // width):
        raise ValueError(f"weight_scale has the shape {list(stored['weight_scale'].shape)}")
    sums = code_sums(codes, table, scale.numpy(), height, width)
    for start, part in _samples(stored, rows, height):
        theirs = bit_sums(unpack(part, scheme))["rows"]
        if not torch.equal(theirs, sums["rows"][start : start + len(theirs)]):
            raise ValueError("compressed-tensors reads other weights than its format says")
    return sums


def _plain(
    stored: Mapping[str, Tensor], scheme: QuantizationScheme, args: QuantizationArgs
) -> bool:
    """Whether codes times a bfloat16 scale is all there is to it."""
    known = str(scheme.format) in LAYOUTS
    alone = "weight_zero_point" not in stored and "weight_g_idx" not in stored
    there = args.strategy in STRATEGIES
    scale = stored["weight_scale"]
    return known and alone and there and scale.dtype == torch.bfloat16 and scale.is_cpu


def _codes(
    stored: Mapping[str, Tensor], args: QuantizationArgs
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Codes as bytes [out, in], and the values of all bytes [256]."""
    every = torch.arange(256, dtype=torch.uint8)
    if "weight_packed" in stored:
        rows, columns = (int(size) for size in stored["weight_shape"])
        words = stored["weight_packed"].contiguous().numpy().view(np.uint32)
        if words.shape != (rows, words_in(columns, args.num_bits)):
            raise ValueError(f"weight_packed has the shape {list(words.shape)}")
        codes = np.empty((rows, columns), dtype=np.uint8)
        unpack_rows(words, args.num_bits, codes)
        return codes, (every.float() - 2.0 ** (args.num_bits - 1)).numpy()
    weight = stored["weight"].contiguous()
    return weight.view(torch.uint8).numpy(), every.view(weight.dtype).float().numpy()


def _samples(
    stored: Mapping[str, Tensor], rows: int, height: int
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """(first row, the stored tensors of some rows) at the top and the bottom of a weight."""
    size = height * -(-SAMPLED // height)
    for start in sorted({0, (rows - 1) // size * size}):
        stop = min(rows, start + size)
        part = dict(stored)
        for name in ("weight", "weight_packed"):
            if name in stored:
                part[name] = stored[name][start:stop]
        scale = stored["weight_scale"]
        if scale.dim() == 2:
            part["weight_scale"] = scale[start // height : -(-stop // height)]
        if "weight_shape" in stored:
            part["weight_shape"] = torch.tensor([stop - start, int(stored["weight_shape"][1])])
        yield start, part
