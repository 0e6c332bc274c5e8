"""Scheme configs refuse what no checkpoint can hold, saying what to do instead."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import UserError
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeConfig, SchemeGroup
from stages.schemes.sizes import label


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"type": "bool"}, "int, float"),
        ({"num_bits": 9}, "2 to 8"),
        ({"type": "float", "num_bits": 5}, "4, 6 or 8"),
        ({"strategy": "rows"}, "tensor_group"),
        ({"strategy": "group"}, "positive group_size"),
        ({"strategy": "group", "group_size": 0}, "positive group_size"),
        ({"strategy": "channel", "group_size": 64}, "only the strategies"),
        ({"strategy": "block"}, r"\[128, 128\]"),
        ({"strategy": "block", "block_structure": [0, 4]}, "1 or more"),
        ({"type": "float", "symmetric": False}, "symmetric"),
        ({"dynamic": "sometimes"}, "false, true, local"),
        ({"dynamic": 1}, "false, true, local"),
        ({"dynamic": "local"}, "tensor_group"),
        ({"dynamic": True, "observer": "minmax"}, "drop observer"),
        ({"scale_dtype": "float64"}, "float8_e4m3fn"),
        ({"scale_dtype": "uint8", "type": "float"}, "group_size 32"),
        ({"type": "float", "num_bits": 4, "strategy": "group", "group_size": 32}, "MXFP4"),
        ({"strategy": "tensor_group", "group_size": 16}, "NVFP4"),
        (
            {"strategy": "group", "group_size": 32, "scale_dtype": "uint8"},
            "for integers",
        ),
        ({"observer": "entropy"}, "memoryless_minmax"),
        ({"observer": "mse", "observer_kwargs": {"patience": 5.0}}, "maxshrink, grid, norm"),
        ({"observer": "static_minmax", "observer_kwargs": {"norm": 2.0}}, "no options"),
        ({"observer": "minmax", "observer_kwargs": {"averaging_constant": 1.5}}, "at most 1"),
    ],
)
def test_impossible_arguments_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        QArgs(**fields)


def test_dynamic_weights_are_refused() -> None:
    with pytest.raises(UserError, match="never dynamic"):
        SchemeGroup(weights=QArgs(dynamic=True))


def test_token_weights_are_refused() -> None:
    with pytest.raises(UserError, match=r"weights\.strategy"):
        SchemeConfig(weights=QArgs(strategy="token"))


def test_inputs_alone_are_refused() -> None:
    with pytest.raises(UserError, match="without weights"):
        SchemeConfig(input_activations=QArgs(strategy="token", dynamic=True))


def test_static_token_inputs_are_refused() -> None:
    with pytest.raises(UserError, match="dynamic: true"):
        SchemeConfig(weights=QArgs(), input_activations=QArgs(strategy="token"))


def test_a_format_that_cannot_hold_the_numbers_is_refused() -> None:
    with pytest.raises(UserError, match="leave format out"):
        SchemeConfig(weights=QArgs(type="float"), format="pack-quantized")


def test_a_broken_expression_is_refused() -> None:
    with pytest.raises(UserError, match="regular expression"):
        SchemeConfig(weights=QArgs(), ignore=["re:(model"])


def test_groups_come_before_the_scheme_itself() -> None:
    down = SchemeGroup(weights=QArgs(), targets=["re:.*down_proj$"])
    scheme = SchemeConfig(weights=QArgs(num_bits=4), groups={"down": down})
    assert [name for name, _ in scheme.ordered()] == ["down", "scheme"]


@pytest.mark.parametrize(
    ("weights", "inputs", "text"),
    [
        (QArgs(num_bits=4, strategy="group", group_size=64), None, "W4A16 g64"),
        (
            QArgs(strategy="channel"),
            QArgs(strategy="token", dynamic=True),
            "W8A8 channel",
        ),
        (QArgs(type="float"), QArgs(type="float"), "FP8 tensor"),
    ],
)
def test_labels_are_the_words_people_use(weights: QArgs, inputs: QArgs | None, text: str) -> None:
    assert label(SchemeGroup(weights=weights, input_activations=inputs)) == text


@pytest.mark.parametrize("kind", [SchemeConfig, SchemeGroup])
def test_quantized_outputs_are_refused_with_the_reason(kind: Any) -> None:
    with pytest.raises(UserError, match="output_activations are not quantized: vLLM and SGLang"):
        kind(weights=QArgs(), output_activations={"num_bits": 8})
