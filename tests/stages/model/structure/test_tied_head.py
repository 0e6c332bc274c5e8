"""The name of a tied lm_head is that which the model's class in transformers has."""

from __future__ import annotations

import pytest
import transformers

from stages.model.blueprint_from_names import EMBEDDINGS
from stages.model.structure.tied_head import tied_head

CLASSES = {
    "WhisperForConditionalGeneration": "whisper",
    "BioGptForCausalLM": "biogpt",
    "ModernBertDecoderForCausalLM": "modernbert-decoder",
    "T5ForConditionalGeneration": "t5",  # ties the embeddings of both parts as well
    "LlamaForCausalLM": "llama",
}


@pytest.mark.parametrize("architecture", CLASSES)
def test_the_head_is_what_the_class_ties(architecture: str) -> None:
    model_type = CLASSES[architecture]
    keys = getattr(transformers, architecture)._tied_weights_keys
    told = {"model_type": model_type, "architectures": [architecture]}
    head = tied_head(told, EMBEDDINGS)
    assert f"{head}.weight" in keys and not head.endswith("embed_tokens")
    assert tied_head({"model_type": model_type}, EMBEDDINGS) == head


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "../whisper", "architectures": ["WhisperForConditionalGeneration"]},
        {"model_type": "whisper", "architectures": ["Whisper.*"]},
        {"model_type": "of_nobody", "architectures": ["OfNobody"]},
        {"model_type": 7, "architectures": {}},
    ],
)
def test_a_class_that_is_not_there_has_the_usual_head(config: dict[str, object]) -> None:
    assert tied_head(config, EMBEDDINGS) == "lm_head"
