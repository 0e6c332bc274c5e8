"""Rules by which MX block scales are chosen, told apart by the largest code of each block.

A rule puts the largest weight of a block, over its scale, into one octave: for FP4 [4, 8) under the
specification's floor, [3.5, 7) where the largest weight is rounded to the code's bits first, (3, 6]
where the power of two is rounded up so that nothing is clipped. So the least of the largest codes
tells: 4 under the first two, 3 under the last. The first two differ in their shares only, as far as
largest weights are spread evenly over an octave, which those of one tensor need not be: 6 is the
largest code of log2(8 / 5) = 68 % of the blocks under floor, of log2(7 / 5) = 49 % if rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.report.units import percent

SPREAD = "; evenly spread largest weights give 32 % and 68 % by floor, 51 % and 49 % if rounded"
ENOUGH = 200
"""Blocks that have to be there before the absence of a code says anything."""
CLIPPING = (
    "MX block scales that may clip: by the specification's floor (torchao's MXTensor, auto-round, "
    "gguf) or of the rounded largest weight (compressed-tensors)"
)
FITTING = "MX block scales rounded up, so that nothing is clipped (ModelOpt, rceil)"
FITTING_8 = (
    "MX block scales with room for the largest weight (ModelOpt, rceil; compressed-tensors too, "
    "with the constant of FP4)"
)
OTHER = "MX block scales by none of the usual rules: searched, learned, or changed since"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ends:
    """The least code that a block ends at: under rules that clip, and under those that do not."""

    clipping: float
    fitting: float
    fits: str


ENDS = {
    4: Ends(clipping=4.0, fitting=3.0, fits=FITTING),
    6: Ends(clipping=4.0, fitting=3.75, fits=FITTING),
    8: Ends(clipping=256.0, fitting=224.0, fits=FITTING_8),
}


def block_rule(largest: Mapping[float, int], num_bits: int) -> tuple[str, str] | None:
    """The rule that gives such largest codes, and the evidence; None for too few blocks.

    `largest` counts blocks by the magnitude of their largest code.
    """
    ends, total = ENDS.get(num_bits), sum(largest.values())
    if ends is None or total < ENOUGH:
        return None
    least = min(code for code, count in largest.items() if count)
    shares = [(code, largest[code] / total) for code in sorted(largest) if largest[code]]
    told = ", ".join(f"{code:g} in {percent(share)}" for code, share in shares[:4])
    evidence = f"of {total} blocks the largest code is {told}{', ...' if len(shares) > 4 else ''}"
    if least >= ends.clipping:
        return CLIPPING, f"{evidence}{SPREAD if num_bits == 4 else ''}"
    return (ends.fits if least >= ends.fitting else OTHER), evidence
