"""Whether the numbers of one quantized weight can be said in another format. No torch here."""

from __future__ import annotations

from stages.schemes.quant_args import QArgs

ROWS = ("tensor", "channel", "group")
"""Strategies from coarse to fine: the scales of one can be repeated to be those of the next."""


def why_not(have: QArgs, want: QArgs, columns: int) -> str | None:
    """Why codes and scales of `have` cannot be kept as they are in `want`, as a phrase; else None.

    Equal grids can, and coarser scales than wanted: they are repeated. A weight has `columns`.
    """
    if (have.num_bits, have.type) != (want.num_bits, want.type):
        return f"the source has {have.type}{have.num_bits} codes, not {want.type}{want.num_bits}"
    if want.symmetric and not have.symmetric:
        return "the source has zero points, and the scheme is symmetric"
    if have.scale_dtype != want.scale_dtype:
        return f"the source has {_scales(have)} scales, not {_scales(want)} ones"
    if have.strategy in ROWS and want.strategy in ROWS:
        mine, theirs = _width(have, columns), _width(want, columns)
        if mine % theirs == 0 and (want.strategy != "tensor" or have.strategy == "tensor"):
            return None
    elif (have.strategy, have.group_size, have.block_structure) == (
        want.strategy,
        want.group_size,
        want.block_structure,
    ):
        return None
    return f"the source has a scale for each {_said(have)}, not for each {_said(want)}"


def _width(args: QArgs, columns: int) -> int:
    """How many columns share a scale."""
    return args.group_size or columns


def _scales(args: QArgs) -> str:
    return args.scale_dtype or "plain"


def _said(args: QArgs) -> str:
    if args.block_structure is not None:
        return "block of " + " x ".join(map(str, args.block_structure))
    if args.group_size is not None:
        return f"group of {args.group_size}"
    return args.strategy
