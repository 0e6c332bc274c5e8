"""Whole multimodal models, of which the language model is compressed."""

from __future__ import annotations

from typing import Any

from tests.families.case import Case, case
from tests.families.dense import WINDOWS
from tests.families.hybrid import LINEAR

MROPE: dict[str, Any] = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
}
GLM: dict[str, Any] = {
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [1, 1, 2],
    }
}
CONV: dict[str, Any] = {
    "model_type": "lfm2",
    "layer_types": ["conv", "full_attention"] * 2,
    "block_ff_dim": 96,
}

MULTIMODAL: tuple[Case, ...] = (
    case(
        "llava",
        cls="LlavaForConditionalGeneration",
        text_config={"model_type": "llama"},
        vision_config={"model_type": "clip_vision_model"},
    ),
    case(
        "gemma3",
        cls="Gemma3ForConditionalGeneration",
        text_config=WINDOWS,
        vision_config={"model_type": "siglip_vision_model"},
    ),
    case(
        "gemma4",
        cls="Gemma4ForConditionalGeneration",
        text_config={
            **WINDOWS,
            "global_head_dim": 32,
            "hidden_size_per_layer_input": 32,
            "vocab_size_per_layer_input": 320,
            "enable_moe_block": True,
            "top_k_experts": 2,
        },
        vision_config={},
    ),
    case(
        "mistral3",
        cls="Mistral3ForConditionalGeneration",
        text_config={"model_type": "mistral"},
        vision_config={"model_type": "pixtral"},
    ),
    case("qwen2_vl", cls="Qwen2VLForConditionalGeneration", text_config=MROPE, vision_config={}),
    case(
        "qwen2_5_vl", cls="Qwen2_5_VLForConditionalGeneration", text_config=MROPE, vision_config={}
    ),
    case("qwen3_vl", cls="Qwen3VLForConditionalGeneration", text_config=MROPE, vision_config={}),
    case(
        "qwen3_vl_moe",
        cls="Qwen3VLMoeForConditionalGeneration",
        text_config=MROPE,
        vision_config={},
    ),
    case(
        "qwen3_5_moe",
        cls="Qwen3_5MoeForConditionalGeneration",
        text_config=LINEAR,
        vision_config={},
    ),
    case("qwen3_5", cls="Qwen3_5ForConditionalGeneration", text_config=LINEAR, vision_config={}),
    case(
        "qwen3_omni_moe_thinker",
        cls="Qwen3OmniMoeThinkerForConditionalGeneration",
        text_config=MROPE,
        vision_config={},
        audio_config={},
    ),
    case(
        "qwen3_omni_moe",
        cls="Qwen3OmniMoeForConditionalGeneration",
        thinker_config={"text_config": MROPE, "vision_config": {}, "audio_config": {}},
        talker_config={
            "text_config": {**MROPE, "shared_expert_intermediate_size": 32},
            "code_predictor_config": {},
            "thinker_hidden_size": 64,
            "spatial_merge_size": 2,
            "accept_hidden_layer": 2,
            "num_code_groups": 2,
        },
        code2wav_config={"decoder_dim": 32, "codebook_size": 32, "num_quantizers": 2},
    ),
    case(
        "llama4",
        cls="Llama4ForConditionalGeneration",
        text_config={"attention_chunk_size": 16, "intermediate_size_mlp": 96},
        vision_config={"projector_input_dim": 64, "projector_output_dim": 64},
    ),
    case(
        "internvl",
        cls="InternVLForConditionalGeneration",
        text_config={"model_type": "qwen2"},
        vision_config={},
    ),
    case(
        "paligemma",
        cls="PaliGemmaForConditionalGeneration",
        text_config={"model_type": "gemma"},
        vision_config={"model_type": "siglip_vision_model"},
    ),
    case("glm4v_moe", cls="Glm4vMoeForConditionalGeneration", text_config=GLM, vision_config={}),
    case("glm4v", cls="Glm4vForConditionalGeneration", text_config=GLM, vision_config={}),
    case(
        "ernie4_5_vl_moe",
        cls="Ernie4_5_VLMoeForConditionalGeneration",
        text_config={
            "moe_intermediate_size": [96, 96],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [3, 3, 2],
            },
        },
        vision_config={},
    ),
    case(
        "idefics3",
        cls="Idefics3ForConditionalGeneration",
        text_config={"model_type": "llama"},
        vision_config={},
    ),
    case(
        "aya_vision",
        cls="AyaVisionForConditionalGeneration",
        text_config={"model_type": "cohere2", **WINDOWS},
        vision_config={"model_type": "siglip_vision_model"},
    ),
    case(
        "lfm2_vl",
        cls="Lfm2VlForConditionalGeneration",
        text_config=CONV,
        vision_config={"model_type": "siglip2_vision_model"},
    ),
    case(
        "aria",
        cls="AriaForConditionalGeneration",
        text_config={"model_type": "aria_text"},
        vision_config={"model_type": "idefics3_vision"},
    ),
)
