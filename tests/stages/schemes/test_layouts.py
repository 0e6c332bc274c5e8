"""Where a config leaves the layout open, it is the smallest that a loader reads."""

from __future__ import annotations

import pytest
from compressed_tensors.compressors.format import infer_module_format
from torch import nn

from stages.formats.compressed_tensors_bridge import to_compressed_tensors
from stages.schemes.layouts import layout_of
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeGroup
from tests.stages.schemes.presets import QUANTIZED, group

PACKED_BY_US = {"w2a4", "w2a8", "w3a4", "w3a8", "w4a4", "w4a8", "w5a8", "w6a8", "w7a8", "w4afp8"}
TOKENS = QArgs(strategy="token", dynamic=True)


def opened(given: SchemeGroup) -> SchemeGroup:
    return SchemeGroup(weights=given.weights, input_activations=given.input_activations)


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_shipped_scheme_says_the_layout_that_would_be_chosen(name: str) -> None:
    assert group(name).format == layout_of(opened(group(name)))


@pytest.mark.parametrize("name", QUANTIZED)
def test_compressed_tensors_would_store_a_byte_a_weight_where_we_pack(name: str) -> None:
    inferred = infer_module_format(nn.Linear, to_compressed_tensors(group(name))).value
    assert inferred == ("int-quantized" if name in PACKED_BY_US else group(name).format)


@pytest.mark.parametrize(
    ("weights", "inputs", "layout"),
    [
        (QArgs(num_bits=3, strategy="channel"), TOKENS, "pack-quantized"),
        (QArgs(num_bits=8, strategy="channel"), None, "pack-quantized"),
        (QArgs(num_bits=4, strategy="tensor"), TOKENS, "int-quantized"),
        (
            QArgs(num_bits=4, strategy="channel"),
            QArgs(strategy="token", dynamic=True, symmetric=False),
            "int-quantized",
        ),
        (QArgs(type="float"), None, "naive-quantized"),
    ],
)
def test_other_combinations(weights: QArgs, inputs: QArgs | None, layout: str) -> None:
    assert layout_of(SchemeGroup(weights=weights, input_activations=inputs)) == layout
