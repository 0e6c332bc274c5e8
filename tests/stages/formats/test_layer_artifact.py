"""What is said of a compressed layer: its formats read back, and what its file will hold."""

from __future__ import annotations

import json

import pytest

from stages.compress.modifiers.rtn_route import RoundedWeight, goes_straight
from stages.formats.compressed_tensors_bridge import to_compressed_tensors
from stages.formats.layer_artifact import from_groups, to_groups
from stages.formats.pack import compressor
from stages.schemes.layouts import layout_of, plain_parts
from tests.stages.schemes.presets import QUANTIZED, group, load


@pytest.mark.parametrize("name", [*QUANTIZED, "mixed"])
def test_formats_read_back_with_their_modules_as_targets(name: str) -> None:
    groups = [group for _, group in load(name).ordered()]
    schemes = {f"layer.{i}": groups[i % len(groups)] for i in range(2 * len(groups) + 1)}
    told = json.loads(json.dumps(to_groups(schemes)))
    found = from_groups(told)
    assert len(found) == len(groups)
    by_module = {target: group for group in found for target in group.targets}
    assert by_module.keys() == schemes.keys()
    for module, scheme in schemes.items():
        again = by_module[module]
        assert (again.weights, again.input_activations) == (
            scheme.weights,
            scheme.input_activations,
        )
        assert again.format == scheme.format


def test_what_a_plain_format_stores_is_what_compressed_tensors_lists() -> None:
    weights = {
        name: RoundedWeight(scheme=group(name), shape=(256, 512), stored="BF16")
        for name in QUANTIZED
    }
    plain = [name for name in QUANTIZED if goes_straight((), "cpu", "bfloat16", [weights[name]])]
    assert {"fp8_dynamic", "fp8_block", "w4a16", "w8a8"} <= set(plain)
    for name in plain:
        scheme = group(name)
        assert scheme.weights is not None
        mine = plain_parts((256, 512), scheme.weights, layout_of(scheme), "BF16")
        theirs = to_compressed_tensors(scheme)
        listed = compressor(theirs).compression_param_names(theirs)
        assert set(mine) == set(listed)
