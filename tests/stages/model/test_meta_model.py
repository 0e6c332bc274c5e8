"""Models on the meta device: built in several threads at once, each has the dtype asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from stages.model.meta_model import config_of, meta_model

TINY = {
    **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 64},
    **{"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4},
    **{"num_attention_heads": 2, "num_key_value_heads": 2},
}


def test_models_built_side_by_side_have_their_own_dtypes() -> None:
    config = config_of(TINY)

    def build(dtype: str) -> set[torch.dtype]:
        return {p.dtype for _ in range(12) for p in meta_model(config, dtype).parameters()}

    names = ("float32", "bfloat16", "float16")
    with ThreadPoolExecutor(len(names)) as pool:
        found = list(pool.map(build, names))
    assert found == [{getattr(torch, name)} for name in names]
