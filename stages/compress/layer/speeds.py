"""Measured speeds of solving here: factor, column loop, scale search, rounding, packing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from stages.compress.grid import Quantized, grid_of
from stages.compress.observers import minmax
from stages.compress.solvers.cholesky import damped, upper_factor
from stages.compress.solvers.gptq import gptq
from stages.compress.solvers.output_error import relative_error
from stages.compress.solvers.rtn import rtn
from stages.compute.timing import least_seconds
from stages.compute.work import COLUMNS, FACTOR, PACK, ROUND, SEARCH, SOLVE
from stages.formats.code_checksum import code_checksum
from stages.formats.compressed_tensors_bridge import to_compressed_tensors
from stages.formats.input_params import InputParams
from stages.formats.pack import pack
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeGroup

ROWS, NARROW, WIDE = 2048, 256, 2048
W4A16 = QArgs(num_bits=4, strategy="group", group_size=128)


def speeds(device: str, threads: int) -> Mapping[str, float]:
    """Kind of work (:mod:`stages.compute.work`) -> how much of it a second `device` does.

    Weights of two widths tell what goes by their elements (search) from what goes by these times
    the width (solve). What a GPU takes to launch its kernels is in both.
    """
    torch.set_num_threads(threads)
    grid = grid_of(W4A16)
    found: dict[int, tuple[float, float]] = {}
    for width in (NARROW, WIDE):
        weight = torch.randn(ROWS, width, device=device)
        x = torch.randn(2 * width, width, device=device)
        H, order = x.T @ x, torch.arange(width, device=device)
        metric = damped(H, 0.01)
        factor = least_seconds(partial(upper_factor, metric, order), device)
        whole = least_seconds(partial(gptq, weight, H, grid), device)
        found[width] = factor, whole - factor
    qparams = minmax.observe(weight, grid)
    rounding = least_seconds(lambda: rtn(weight, grid, qparams), device)
    by_element = {width: max(rest, 1e-9) / (ROWS * width) for width, (_, rest) in found.items()}
    made = rtn(weight, grid, qparams)
    packing = least_seconds(lambda: _packed(made, weight), device)
    slope = max((by_element[WIDE] - by_element[NARROW]) / (WIDE - NARROW), 0.0)
    search = max(by_element[NARROW] - slope * NARROW, 1e-12)
    return {
        FACTOR: WIDE**3 / 3 / found[WIDE][0],
        SOLVE: 1 / slope if slope else math.inf,
        SEARCH: 1 / search,
        ROUND: ROWS * WIDE / rounding,
        PACK: ROWS * WIDE / packing,
        COLUMNS: math.inf,
    }


def _packed(made: Quantized, weight: Tensor) -> None:
    """What is done to a solved weight: its error, its tensors in a checkpoint, its checksums."""
    if made.codes is None:
        raise ValueError("rounding gives codes")
    scheme = to_compressed_tensors(SchemeGroup(weights=W4A16))
    scale, codes = made.scale, made.codes
    relative_error(weight, made.weight, None)
    pack(
        codes, scale=scale, zero_point=None, global_scale=None, inputs=InputParams(), scheme=scheme
    )
    code_checksum(
        codes,
        scale=scale,
        zero_point=None,
        global_scale=None,
        scheme=scheme,
        dtype=torch.bfloat16,
    )
