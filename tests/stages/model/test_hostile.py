"""Names, shapes and configs made to break the outline: outlined, or refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.key import digest
from stages.model.blueprint_from_names import natural, outline_of
from stages.model.meta_model import config_of, meta_model
from tests.fuzz import TEXTS, cases, fuzz, hostile, mutated


@dataclass(frozen=True)
class Spec:
    shape: tuple[int, ...]
    dtype: str


SOUND = {
    "model_type": "strange",
    "architectures": ["StrangeForCausalLM"],
    "hidden_size": 8,
    "vocab_size": 16,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
    "text_config": {"hidden_size": 8, "torch_dtype": "float16"},
}
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32,
    "max_position_embeddings": 64,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
STEMS = [
    "model.layers.",
    "layers.",
    "h.",
    "mtp.0.",
    "model.embed_tokens",
    "lm_head",
    "²",
    "x.\ud800",
]
LEAVES = ["mlp.up_proj.weight", "c_attn.weight", "gate.weight", "norm.weight", "weight", "bias"]
names = st.builds(
    lambda stem, number, leaf: f"{stem}{number}.{leaf}",
    st.sampled_from([*STEMS, *TEXTS]),
    st.sampled_from(["0", "1", "10", "²", "٣", "9" * 5000, "-1", "", "01"]),
    st.sampled_from(LEAVES),
)
sizes = st.lists(st.sampled_from([0, 1, 2, 8, 16, 2**40]), max_size=4).map(tuple)
specs = st.dictionaries(
    names, st.builds(Spec, sizes, st.sampled_from(["BF16", "F32", "I32", "F8_E4M3"])), max_size=6
)


@cases(few=300, many=4000)
def test_any_checkpoint_is_outlined_or_refused(cases: int) -> None:
    def check(case: tuple[Any, dict[str, Spec]]) -> None:
        config, tensors = case
        tensors = {"model.layers.0.mlp.up_proj.weight": Spec((8, 4), "BF16"), **tensors}
        try:
            found = outline_of(config if isinstance(config, dict) else {}, tensors, why="a test")
        except UserError:
            return
        outside = {name for name in found.outside.values() if name in tensors}
        inside = {name for layer in found.layers for name in layer.tensors.values()}
        assert outside | inside == set(tensors)

    fuzz(cases, st.tuples(mutated(SOUND), specs), check)


def test_numbers_sort_by_value_whatever_script_they_are_in() -> None:
    found = sorted(["layers.10.x", "layers.²", "layers.9.x", "layers." + "9" * 5000], key=natural)
    assert found.index("layers.9.x") < found.index("layers.10.x")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_any_config_of_a_known_class_builds_a_model_or_is_refused() -> None:
    def check(config: Any) -> None:
        if not isinstance(config, dict):
            return
        try:
            meta_model(config_of(config), "bfloat16")
        except UserError as error:
            assert str(error)

    fuzz(600, mutated(LLAMA, most=2), check)


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 1e300},
        {"text_config": {"depth": 10**7}},
        {"num_local_experts": 10**6},
        {"hidden_size": 0, "num_attention_heads": 0},
        {"hidden_size": 10**30},
        {"hidden_act": "nothing"},
        {"vocab_size": -5},
    ],
)
def test_a_config_that_would_only_use_up_memory_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        meta_model(config_of({**LLAMA, **change}), "bfloat16")


def test_a_config_cannot_choose_code_to_fetch() -> None:
    config = {**LLAMA, "_attn_implementation": "some-one/kernel"}
    config["attn_implementation"] = "some-one/kernel"
    assert "kernel" not in str(
        meta_model(config_of(config), "bfloat16").config._attn_implementation
    )


def test_hostile_values_are_hostile() -> None:
    found: list[object] = []
    fuzz(50, hostile, found.append)
    assert len({digest(repr(value)) for value in found}) > 20
