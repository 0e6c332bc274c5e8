"""Column loops of GPTQ and of coordinate descent as Triton kernels, for GPUs.

A program owns some rows of the weight and walks the columns of a block, with the block's state, a
tile [BLOCK, ROWS], in registers. No kernel reads what is written in the same launch, apart from
tiles that are loaded whole before a loop and stored whole after it: no order of warps is relied on.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from stages.compress.grid import Rounding
from stages.compress.grid_triton import as_scalars, launch, power_of_two, rounded, rounded_code
from stages.compress.solvers.gptq_arrays import Columns, Descent, Params, Sweep

ROWS, WARPS = 32, 4
"""Rows and warps of a program for blocks of 128 columns: twice as many rows spill registers."""


@triton.jit(do_not_specialize=["columns"])
def nearest_plane_kernel(
    w_ptr, carried_ptr, code_ptr, error_ptr, keep_ptr, factor_ptr, scale_ptr, zero_ptr, group_ptr,
    columns, rows, binade, step, low, high,
    BOUND: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    alive = r < rows
    j = tl.arange(0, BLOCK)
    inside = j < columns
    where = j[:, None] * rows + r[None, :]
    mask = inside[:, None] & alive[None, :]
    carried = tl.load(carried_ptr + where, mask=mask, other=0.0)

    # the next column's operands are loaded while this one is worked on
    g = tl.load(group_ptr)
    w = tl.load(w_ptr + r, mask=alive, other=0.0)
    s = tl.load(scale_ptr + g * rows + r, mask=alive, other=1.0)
    z = tl.load(zero_ptr + g * rows + r, mask=alive, other=0.0)
    diagonal = tl.load(factor_ptr)
    factor = tl.load(factor_ptr + j, mask=inside, other=0.0)
    for k in range(columns):
        n = tl.minimum(k + 1, columns - 1)
        g = tl.load(group_ptr + n)
        w_next = tl.load(w_ptr + n * rows + r, mask=alive, other=0.0)
        s_next = tl.load(scale_ptr + g * rows + r, mask=alive, other=1.0)
        z_next = tl.load(zero_ptr + g * rows + r, mask=alive, other=0.0)
        diagonal_next = tl.load(factor_ptr + n * columns + n)
        factor_next = tl.load(factor_ptr + n * columns + j, mask=inside & (j >= n), other=0.0)

        own = tl.sum(tl.where(j[:, None] == k, carried, 0.0), axis=0)
        target = tl.div_rn(w + tl.div_rn(own, diagonal + tl.zeros_like(own)), s) + z
        v = rounded_code(target, binade, step, low, high) - z
        if BOUND:
            v = tl.where(tl.load(keep_ptr + k * rows + r, mask=alive, other=0.0) > 0.0, v, 0.0)
        e = w - v * s
        tl.store(code_ptr + k * rows + r, v, mask=alive)
        tl.store(error_ptr + k * rows + r, e, mask=alive)
        carried += factor[:, None] * e[None, :]

        w = w_next
        s = s_next
        z = z_next
        diagonal = diagonal_next
        factor = factor_next
    tl.store(carried_ptr + where, carried, mask=mask)


@triton.jit(do_not_specialize=["columns", "width"])
def descend_kernel(
    code_ptr, new_code_ptr, gradient_ptr, gram_ptr, scale_ptr, new_scale_ptr, zero_ptr, group_ptr,
    change_ptr, gained_ptr, keep_ptr, columns, rows, width, multiplier,
    binade, step, low, high, scale_binade, scale_step, scale_low, scale_high,
    REFIT: tl.constexpr, DESCEND: tl.constexpr, BOUND: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    alive = r < rows
    j = tl.arange(0, BLOCK)
    inside = j < columns
    where = j[:, None] * rows + r[None, :]
    mask = inside[:, None] & alive[None, :]
    gradient = tl.load(gradient_ptr + where, mask=mask, other=0.0)
    total = tl.load(gained_ptr + r, mask=alive, other=0.0)
    for begin in range(0, columns, width):
        end = tl.minimum(begin + width, columns)
        g = tl.load(group_ptr + begin)
        old = tl.load(scale_ptr + g * rows + r, mask=alive, other=1.0)
        z = tl.load(zero_ptr + g * rows + r, mask=alive, other=0.0)
        s = old
        if REFIT:
            # min over the scale: e -> e - d v, so d = (e H v) / (v H v)
            product = tl.zeros([BLOCK, ROWS], dtype=tl.float32)
            for k in range(begin, end):
                v = tl.load(code_ptr + k * rows + r, mask=alive, other=0.0)
                h = tl.load(gram_ptr + k * columns + j, mask=inside, other=0.0)
                product += h[:, None] * v[None, :]
            member = (j >= begin) & (j < end)
            own = tl.load(code_ptr + where, mask=member[:, None] & alive[None, :], other=0.0)
            upper = tl.sum(own * gradient, axis=0)
            lower = tl.sum(own * product, axis=0)
            counts = lower > 0.0
            ratio = tl.where(counts, tl.div_rn(upper, tl.where(counts, lower, 1.0)), 0.0)
            wanted = (old + ratio) * multiplier
            sign = tl.where(old < 0.0, -1.0, 1.0)
            fitted = rounded(sign * wanted, scale_binade, scale_step, scale_low, scale_high)
            fitted = sign * fitted
            fitted = tl.div_rn(fitted, multiplier + tl.zeros_like(fitted))
            d = fitted - old
            gain = d * (d * lower - 2.0 * upper)
            better = counts & (gain < 0.0)
            s = tl.where(better, fitted, old)
            total += tl.where(better, gain, 0.0)
            d = tl.where(better, d, 0.0)
            gradient -= product * d[None, :]
            tl.store(new_scale_ptr + (begin // width) * rows + r, s, mask=alive)

        v = tl.load(code_ptr + begin * rows + r, mask=alive, other=0.0)
        diagonal = tl.load(gram_ptr + begin * columns + begin)
        h = tl.load(gram_ptr + begin * columns + j, mask=inside, other=0.0)
        for k in range(begin, end):
            n = tl.minimum(k + 1, columns - 1)
            v_next = tl.load(code_ptr + n * rows + r, mask=alive, other=0.0)
            diagonal_next = tl.load(gram_ptr + n * columns + n)
            h_next = tl.load(gram_ptr + n * columns + j, mask=inside, other=0.0)
            if not REFIT:  # then the stretch may hold more than one group
                g = tl.load(group_ptr + k)
                old = tl.load(scale_ptr + g * rows + r, mask=alive, other=1.0)
                z = tl.load(zero_ptr + g * rows + r, mask=alive, other=0.0)
                s = old
            new = v
            if DESCEND:
                slope = tl.sum(tl.where(j[:, None] == k, gradient, 0.0), axis=0)
                live = diagonal > 0.0
                target = tl.div_rn(slope, tl.where(live, diagonal, 1.0) + tl.zeros_like(slope))
                target = v + tl.div_rn(target, s) + z
                new = tl.where(live, rounded_code(target, binade, step, low, high) - z, v)
                if BOUND:
                    kept = tl.load(keep_ptr + k * rows + r, mask=alive, other=0.0)
                    new = tl.where(kept > 0.0, new, 0.0)
                moved = (new - v) * s
                total += moved * (moved * diagonal - 2.0 * slope)
                gradient -= h[:, None] * moved[None, :]
            tl.store(new_code_ptr + k * rows + r, new, mask=alive)
            tl.store(change_ptr + k * rows + r, new * s - v * old, mask=alive)
            v = v_next
            diagonal = diagonal_next
            h = h_next
    tl.store(gradient_ptr + where, gradient, mask=mask)
    tl.store(gained_ptr + r, total, mask=alive)


def nearest_plane_block(
    columns: Columns[Tensor], M: Tensor, params: Params[Tensor], codes: Rounding
) -> None:
    """Quantize a block of columns one after the other, in place; M [columns, columns]."""
    count, rows = columns.W.shape
    if not rows or not count:
        return
    _check_contiguous(*columns, M, *params)
    W, EM, code, E, keep = columns
    scale, zero_point, group, _ = params
    launch(
        nearest_plane_kernel,
        programs(count, rows),
        *(W, EM, code, E, W if keep is None else keep, M, scale, zero_point, group, count, rows),
        *as_scalars(codes),
        BOUND=keep is not None,
        **shape_of_programs(count),
    )


def descend_block(
    block: Descent[Tensor],
    H: Tensor,
    params: Params[Tensor],
    sweep: Sweep,
    codes: Rounding,
    scales: Rounding,
) -> None:
    """Refit the scales and the codes of a block of columns, in place; H [columns, columns].

    The gradient of the whole block is kept right, whatever `sweep.onward` says.
    """
    columns, rows = block.code.shape
    if not rows or not columns:
        return
    _check_contiguous(*block, H, *params)
    code, gradient, change, gained, keep = block
    scale, zero_point, group, _ = params
    width = min(params.width, columns) if sweep.refit else columns
    refitted = torch.empty(-(-columns // width), rows, device=scale.device)
    found = torch.empty_like(code)
    launch(
        descend_kernel,
        programs(columns, rows),
        *(code, found, gradient, H, scale, refitted, zero_point, group, change, gained),
        *(code if keep is None else keep, columns, rows, width, float(sweep.multiplier)),
        *as_scalars(codes),
        *as_scalars(scales),
        REFIT=sweep.refit,
        DESCEND=sweep.descend,
        BOUND=keep is not None,
        **shape_of_programs(columns),
    )
    if sweep.descend:
        code.copy_(found)
    if sweep.refit:
        scale.index_copy_(0, group[::width], refitted)


def programs(columns: int, rows: int) -> tuple[int]:
    """How many programs serve so many rows of a block."""
    return (-(-rows // shape_of_programs(columns)["ROWS"]),)


def shape_of_programs(columns: int) -> dict[str, Any]:
    """Constants of a launch: tiles of powers of two, as large as ROWS rows of 128 columns."""
    block = max(16, power_of_two(columns))
    rows = min(ROWS, max(4, ROWS * 128 // block))
    return {"BLOCK": block, "ROWS": rows, "num_warps": WARPS, "num_stages": 1}


def _check_contiguous(*arrays: Tensor | int | None) -> None:
    if not all(a.is_contiguous() for a in arrays if isinstance(a, Tensor)):
        raise ValueError("kernels take contiguous tensors only")
