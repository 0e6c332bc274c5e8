"""The rule of MX block scales, told from the largest codes of blocks that each rule gives."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from stages.inspect.block_rules import CLIPPING, FITTING, FITTING_8, OTHER, block_rule

FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def largest(low: float, high: float) -> Counter[float]:
    """Largest codes where the largest weights over their scales fill an octave evenly."""
    tops = torch.exp2(torch.linspace(torch.tensor(low).log2(), torch.tensor(high).log2(), 1000))
    codes = FP4[(tops[:, None] - FP4).abs().argmin(1)]
    return Counter(codes.tolist())


@pytest.mark.parametrize(
    ("octave", "rule"),
    [((4.001, 7.99), CLIPPING), ((3.501, 6.99), CLIPPING), ((3.001, 6), FITTING), ((2, 4), OTHER)],
)
def test_the_rule_of_fp4_blocks_is_told(octave: tuple[float, float], rule: str) -> None:
    found = block_rule(largest(*octave), 4)
    assert found is not None and found[0] == rule and "of 1000 blocks" in found[1]


def test_few_blocks_say_nothing_and_shares_are_evidence_only() -> None:
    assert block_rule({4.0: 50, 6.0: 60}, 4) is None
    told = block_rule({4.0: 415, 6.0: 585}, 4)
    assert told is not None and told[0] == CLIPPING
    assert told[1].startswith("of 1000 blocks the largest code is 4 in 41.5 %, 6 in 58.5 %; evenly")
    told = block_rule({224.0: 10, 256.0: 300, 448.0: 1}, 8)
    assert told is not None and told[0] == FITTING_8
