"""Column loops of GPTQ and of coordinate descent in plain torch: reference and fallback."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.compress.grid import Rounding, round_scale, round_to
from stages.compress.solvers.gptq_arrays import Columns, Descent, Params, Sweep


def nearest_plane_block(
    columns: Columns[Tensor], M: Tensor, params: Params[Tensor], codes: Rounding
) -> None:
    """Quantize a block of columns one after the other, in place; M [columns, columns]."""
    W, EM, code, E, keep = columns
    scale, zero_point = params.scale[params.group], params.zero_point[params.group]
    for k in range(W.shape[0]):
        target = (W[k] + EM[k] / M[k, k]) / scale[k] + zero_point[k]
        code[k] = _free(round_to(target, codes) - zero_point[k], keep, k)
        E[k] = W[k] - code[k] * scale[k]
        EM[k:] += M[k, k:, None] * E[k]


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
    code, gradient, change, gained, keep = block
    scale, zero_point, group = params.scale, params.zero_point, params.group
    before, gradient_before = code * scale[group], gradient.clone()
    for g in torch.unique_consecutive(group).tolist():
        members = torch.nonzero(group == g).flatten()
        if sweep.refit:
            _refit(code, gradient, H, members, scale[g], sweep.multiplier, scales)
        if sweep.descend:
            for k in members.tolist():
                _descend(code, gradient, H, k, scale[g], zero_point[g], codes, keep)
    change.copy_(code * scale[group] - before)
    # f(e - d) - f(e) = -2 R d + d H d, and d H d = d (R before - R after)
    gained -= (change * (gradient_before + gradient)).sum(dim=0)


def _refit(
    code: Tensor,
    gradient: Tensor,
    H: Tensor,
    members: Tensor,
    scale: Tensor,
    multiplier: float,
    scales: Rounding,
) -> None:
    v = code[members]
    product = H[:, members] @ v
    upper = (v * gradient[members]).sum(dim=0)
    lower = (v * product[members]).sum(dim=0)
    wanted = scale + torch.where(lower > 0, upper / lower, 0.0)
    new = round_scale(wanted * multiplier, scale, scales) / multiplier
    change = new - scale
    better = (lower > 0) & (change * (change * lower - 2 * upper) < 0)
    change = torch.where(better, change, 0.0)
    gradient -= product * change
    scale.copy_(torch.where(better, new, scale))


def _descend(
    code: Tensor,
    gradient: Tensor,
    H: Tensor,
    k: int,
    scale: Tensor,
    zero_point: Tensor,
    codes: Rounding,
    keep: Tensor | None,
) -> None:
    target = code[k] + gradient[k] / H[k, k].clamp(min=torch.finfo(H.dtype).tiny) / scale
    new = _free(round_to(target + zero_point, codes) - zero_point, keep, k)
    new = torch.where(H[k, k] > 0, new, code[k])
    gradient -= H[:, k, None] * ((new - code[k]) * scale)
    code[k] = new


def _free(code: Tensor, keep: Tensor | None, k: int) -> Tensor:
    """The codes [rows] of column k, 0 where they are not free."""
    return code if keep is None else torch.where(keep[k] == 0, 0.0, code)
