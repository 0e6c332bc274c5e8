"""GPTQ (arXiv:2210.17323): quantize column by column, so that later columns make up for errors.

Notation, as the paper has it: W [out, in] the weight, Q its quantized values, E = W - Q, H = X X^T
[in, in] the Hessian with damping on its diagonal, B the block size. The paper walks along U, the
upper Cholesky factor of H^-1 = U^T U. Here it is M = U^-1, upper triangular with H = M M^T, which
takes one Cholesky and no inverse: tr(E H E^T) = |E M|^2, and column k of E M is
sum_{j<k} E_j M_jk + E_k M_kk. So with columns 0..k-1 quantized the best value for column k is
W_k + (sum_{j<k} E_j M_jk) / M_kk, which is the paper's update (and Babai's nearest plane).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stages.compress.deprecated_args import takes_args
from stages.compress.grid import ROW_STRATEGIES, Grid, Quantized, column_scale, expand
from stages.compress.observers.catalog import OBSERVERS, Observe
from stages.compress.solvers.cholesky import damped, upper_factor
from stages.compress.solvers.coordinate_descent import descend, stored_scale
from stages.compress.solvers.gptq_arrays import Columns, Params
from stages.compress.solvers.gptq_blocks import by_tiles, nearest_plane_block
from stages.compress.solvers.numerical_error import all_finite, not_finite
from stages.compress.solvers.output_error import weight_energies
from stages.compress.solvers.products import add_product
from stages.formats.codes import code_dtype, encode


@takes_args
def gptq(
    weight: Tensor,
    H: Tensor,
    grid: Grid,
    *,
    block_size: int = 128,
    dampening_frac: float = 0.01,
    actorder: str = "static",
    observer: str | Observe = "gram",
    observer_options: Mapping[str, Any] | None = None,
    refit: int = 1,
    descent: int = 1,
    global_scale: Tensor | None = None,
    energy: Tensor | None = None,
    tf32: bool = False,
    pruned: Tensor | None = None,
) -> Quantized:
    """Codes and scales for ``weight`` [out, in] that minimise tr((W-Q) H (W-Q)^T).

    H: float32 [in, in], sum or mean of x x^T over tokens; its scale does not matter.
    dampening_frac: the paper's percdamp. actorder: "static" solves columns by falling H_jj (groups
    stay as they are), "none" in order. observer: how scales are first chosen, by a name of the
    catalog or a function like those in it. refit, descent: sweeps of scale refits and of coordinate
    descent over the result; see :mod:`stages.compress.solvers.coordinate_descent`. global_scale:
    float32 [1], where tensor_group weights share one. energy: float32 [out], the second column of
    `losses` of an earlier solution for this weight, H, damping, order and tf32. tf32: multiply
    blocks by each other in TF32; see :mod:`stages.compress.solvers.products`. pruned: ``weight`` as
    a pruner left it, whose zeros stay zeros and for which scales are chosen; codes still come as
    near to the outputs of ``weight`` as they can. Rows are independent:
    stacked weights give what separate calls give (strategies channel, group and tensor_group).
    Raises NumericalError when the damped H is not positive definite or anything is not finite.
    """
    # 1. Damp H, order the columns, factorize H = M M^T.
    if actorder not in ("static", "none"):
        raise ValueError(f"actorder is {actorder!r}: choose static or none")
    metric, order = damped(H, dampening_frac), torch.arange(H.shape[0], device=H.device)
    if actorder == "static":
        order = torch.argsort(metric.diagonal, descending=True, stable=True)
    M = upper_factor(metric, order)

    # 2. Choose scales and zero points before any column is quantized. tr(E H E^T) is the sum of
    # M_kk^2 (target_k - q_k)^2: the conditional observer counts no error that is made up for later.
    importance = H.diagonal()
    if observer == "conditional":
        importance = torch.empty_like(importance)
        importance[order] = M.diagonal().square()
    observe = OBSERVERS[observer] if isinstance(observer, str) else observer
    options = {"importance": importance, "global_scale": global_scale, **(observer_options or {})}
    qparams = observe(weight if pruned is None else pruned, grid, **options)
    multiplier = 1.0 if qparams.global_scale is None else float(qparams.global_scale)
    scale, zero_point = expand(qparams, grid, weight.shape[0])
    scale = scale.contiguous().clone()

    # 3. Quantize, a tile of rows at a time, as rows are independent of each other.
    refit = refit if grid.strategy in ROW_STRATEGIES else 0
    group, width = column_scale(grid, H.shape[0], H.device), grid.width(H.shape[0])
    Q = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
    codes = torch.empty(weight.shape, dtype=code_dtype(grid), device=weight.device)
    losses = torch.empty(weight.shape[0], 2, device=weight.device)
    refine = refit + descent > 0
    improve = partial(descend, metric=metric, grid=grid, refit=refit, descent=descent)
    quantize = partial(quantize_columns, grid=grid, B=block_size, refine=refine, tf32=tf32)
    improve = partial(improve, multiplier=multiplier, block_size=block_size, tf32=tf32)

    def tile(start: int, stop: int) -> None:
        rows = slice(start, stop)
        # transposed; copies, as the transpose of one row is none and both are written to
        W = torch.empty(weight[rows].T.shape, device=weight.device).copy_(weight[rows].T)
        s = scale[rows].T.clone(memory_format=torch.contiguous_format)
        params = Params(s, zero_point[rows].T.contiguous(), group, width)
        in_order = W.index_select(0, order)
        known = None if energy is None else energy[rows]
        if known is None:
            known = weight_energies(in_order, M, metric.amount, tf32=tf32)
        keep = None if pruned is None else (pruned[rows].T != 0).float().contiguous()
        ordered = None if keep is None else keep.index_select(0, order)
        code, EH, error = quantize(in_order, M, order, params, keep=ordered)
        if refine:  # 4. Refit scales and codes, now that all errors are known.
            error += improve(code, EH, params, keep=keep)
        q = s.index_select(0, group).mul_(code)
        undamped = error - metric.amount * W.sub_(q).square_().sum(dim=0)
        losses[rows] = torch.stack([undamped, known], dim=1).clamp_(min=0.0)
        Q[rows], scale[rows] = q.T, s.T
        if not grid.symmetric:
            code += params.zero_point.index_select(0, group)
        codes[rows] = encode(code, grid).T

    by_tiles(weight, tile)
    if not all_finite(losses):
        raise not_finite(weight)

    # 5. Store refitted scales as the checkpoint does.
    return Quantized(
        weight=Q,
        codes=codes,
        scale=stored_scale(scale, Q, qparams, grid, multiplier) if refit else qparams.scale,
        zero_point=qparams.zero_point,
        global_scale=qparams.global_scale,
        losses=losses,
    )


def quantize_columns(
    W: Tensor,
    M: Tensor,
    order: Tensor,
    params: Params[Tensor],
    *,
    grid: Grid,
    B: int,
    refine: bool,
    tf32: bool,
    keep: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The paper's loop over blocks of B columns, for W [in, rows] in solving order.

    Gives codes minus zero points and, to `refine` them, the gradient E H, both [in, rows] in the
    original order, and E H E^T [rows] with the damping. keep [in, rows]: 0 where a code stays 0.
    """
    code, E, EM, EH = (torch.zeros_like(W) for _ in range(4))
    group = params.group[order]
    for start in range(0, len(W), B):
        block, rest = slice(start, start + B), slice(min(start + B, len(W)), None)
        # For column k of the block: q_k = quant(W_k + (E M)_k / M_kk), E_k = W_k - q_k, and
        # E M += E_k M_k in the columns of the block.
        kept = None if keep is None else keep[block]
        columns = Columns(W[block], EM[block], code[block], E[block], kept)
        corner = M[block, block].contiguous()
        nearest_plane_block(columns, corner, params.of(group[block]), grid.codes)
        # The same for all later columns, in one product (the paper's lazy batch update).
        add_product(EM[rest], M[block, rest].T, E[block], tf32=tf32)
        if refine:  # E H = (E M) M^T, by the columns of E M that are complete; M is triangular
            add_product(EH[: start + B], M[: start + B, block], EM[block], tf32=tf32)
    back = torch.argsort(order)
    return code.index_select(0, back), EH.index_select(0, back), EM.square_().sum(dim=0)
