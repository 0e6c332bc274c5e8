"""GPTQ's column loops in plain torch, for devices that the compiled loops do not serve."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.compress.grid import Rounding, round_to


def nearest_plane_block(
    w: Tensor,
    carried: Tensor,
    factor: Tensor,
    group: Tensor,
    scale: Tensor,
    zero: Tensor,
    code: Tensor,
    error: Tensor,
    codes: Rounding,
) -> None:
    """Same shapes, same effect as the compiled kernel."""
    scale, zero = scale[group], zero[group]
    for k in range(w.shape[0]):
        target = (w[k] + carried[k] / factor[k, k]) / scale[k] + zero[k]
        code[k] = round_to(target, codes) - zero[k]
        error[k] = w[k] - code[k] * scale[k]
        carried[k:] += factor[k, k:, None] * error[k]


def descend_block(
    code: Tensor,
    gradient: Tensor,
    gram: Tensor,
    group: Tensor,
    scale: Tensor,
    zero: Tensor,
    change: Tensor,
    gained: Tensor,
    refit: bool,
    descend: bool,
    multiplier: float,
    codes: Rounding,
    scales: Rounding,
) -> None:
    """Same shapes, same effect as the compiled kernel; the whole block's gradient is kept right."""
    before, gradient_before = code * scale[group], gradient.clone()
    for g in torch.unique_consecutive(group).tolist():
        members = torch.nonzero(group == g).flatten()
        if refit:
            _refit(code, gradient, gram, members, scale[g], multiplier, scales)
        if descend:
            for k in members.tolist():
                _descend(code, gradient, gram, k, scale[g], zero[g], codes)
    change.copy_(code * scale[group] - before)
    # f(e - d) - f(e) = -2 R d + d H d, and d H d = d (R before - R after)
    gained -= (change * (gradient_before + gradient)).sum(dim=0)


def _refit(
    code: Tensor,
    gradient: Tensor,
    gram: Tensor,
    members: Tensor,
    scale: Tensor,
    multiplier: float,
    scales: Rounding,
) -> None:
    v = code[members]
    product = gram[:, members] @ v
    upper = (v * gradient[members]).sum(dim=0)
    lower = (v * product[members]).sum(dim=0)
    wanted = scale + torch.where(lower > 0, upper / lower, 0.0)
    change = round_to(wanted * multiplier, scales) / multiplier - scale
    better = (lower > 0) & (change * (change * lower - 2 * upper) < 0)
    change = torch.where(better, change, 0.0)
    gradient -= product * change
    scale.copy_(torch.where(better, round_to(wanted * multiplier, scales) / multiplier, scale))


def _descend(
    code: Tensor,
    gradient: Tensor,
    gram: Tensor,
    k: int,
    scale: Tensor,
    zero: Tensor,
    codes: Rounding,
) -> None:
    target = code[k] + gradient[k] / gram[k, k].clamp(min=torch.finfo(gram.dtype).tiny) / scale
    new = round_to(target + zero, codes) - zero
    new = torch.where(gram[k, k] > 0, new, code[k])
    gradient -= gram[:, k, None] * ((new - code[k]) * scale)
    code[k] = new
