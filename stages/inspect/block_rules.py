"""Rules by which MX block scales are chosen, told apart by the largest code of each block.

A rule puts the largest weight of a block, over its scale, into one octave: for FP4 [4, 8) under the
specification's floor, [3.5, 7) where the largest weight is rounded to the code's bits first, (3, 6]
where the power of two is rounded up so that nothing is clipped. So the least of the largest codes
tells: 4 under the first two, 3 under the last. The first two differ in their shares: largest
weights are spread evenly over an octave, near enough, so that 6 is the largest code of log2(8 / 5)
= 68 % of the blocks under floor, and of log2(7 / 5) = 49 % where it is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.report.units import percent

ENOUGH = 200
"""Blocks that have to be there before the absence of a code says anything."""
FLOOR = (
    "MX block scales by the specification's floor, which may clip (torchao's default, auto-round, "
    "gguf)"
)
ROUNDED = "MX block scales of the rounded largest weight, which may clip (compressed-tensors)"
CLIPPING = "MX block scales that may clip: floor or rounded, which only the original tells"
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
        return _clipping(largest.get(6.0, 0) / total if num_bits == 4 else None, evidence)
    return (ends.fits if least >= ends.fitting else OTHER), evidence


def _clipping(sixes: float | None, evidence: str) -> tuple[str, str]:
    """Floor or rounded, by the share of FP4 blocks that end at 6, where that is near enough."""
    if sixes is None or not 0.40 < sixes < 0.78 or 0.56 < sixes < 0.61:
        return CLIPPING, evidence
    return (FLOOR if sixes > 0.585 else ROUNDED), f"{evidence}; floor gives 32 % and 68 %"
