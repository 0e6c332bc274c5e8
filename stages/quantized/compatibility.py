"""Compatibility of number formats: whether codes and scales carry over unchanged. No torch here."""

from __future__ import annotations

from stages.schemes.quant_args import QArgs

ROWS = ("tensor", "channel", "group")
"""Strategies from coarse to fine: repeated scales of one are scales of the next."""


def why_not(have: QArgs, want: QArgs, columns: int) -> str | None:
    """The reason why codes and scales of `have` cannot be kept in `want`; None if they can.

    They can if the formats are equal, or if the scales are coarser than wanted: then they are
    repeated. `columns` is the width of the weight.
    """
    if (have.num_bits, have.type) != (want.num_bits, want.type):
        return f"the source has {have.type}{have.num_bits} codes, not {want.type}{want.num_bits}"
    if want.symmetric and not have.symmetric:
        return "the source has zero points, and the scheme is symmetric"
    if have.scale_dtype != want.scale_dtype:
        return f"the source has {_scales(have)} scales, not {_scales(want)} ones"
    if have.strategy in ROWS and want.strategy in ROWS:
        width, wanted = _width(have, columns), _width(want, columns)
        if width % wanted == 0 and (want.strategy != "tensor" or have.strategy == "tensor"):
            return None
    elif (have.strategy, have.group_size, have.block_structure) == (
        want.strategy,
        want.group_size,
        want.block_structure,
    ):
        return None
    return (
        f"the source has a scale for each {_granularity(have)}, not for each {_granularity(want)}"
    )


def _width(args: QArgs, columns: int) -> int:
    """Number of columns that share a scale."""
    return args.group_size or columns


def _scales(args: QArgs) -> str:
    return args.scale_dtype or "plain"


def _granularity(args: QArgs) -> str:
    if args.block_structure is not None:
        return "block of " + " x ".join(map(str, args.block_structure))
    if args.group_size is not None:
        return f"group of {args.group_size}"
    return args.strategy
