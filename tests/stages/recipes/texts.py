"""Files that llm-compressor 0.14.0.1 wrote: `Recipe.from_modifiers(...).yaml()`."""

PRESET = """
default_stage:
  default_modifiers:
    QuantizationModifier:
      targets: [Linear]
      ignore: [lm_head, 're:.*gate$']
      scheme: FP8_DYNAMIC
      bypass_divisibility_checks: false
      requires_calibration_data: false
"""

GPTQ_GROUPS = """
default_stage:
  default_modifiers:
    GPTQModifier:
      config_groups:
        group_0:
          targets: [Linear]
          weights:
            num_bits: 4
            type: int
            symmetric: true
            group_size: 32
            strategy: group
            block_structure: null
            dynamic: false
            actorder: null
            scale_dtype: null
            zp_dtype: null
            observer: mse
            observer_kwargs: {}
          input_activations: null
          output_activations: null
          format: null
      targets: [Linear]
      ignore: [lm_head]
      bypass_divisibility_checks: false
      requires_calibration_data: true
      block_size: 64
      dampening_frac: 0.05
      actorder: static
      batched_quantization: auto
"""

SMOOTH = """
default_stage:
  default_modifiers:
    SmoothQuantModifier: {requires_calibration_data: true, smoothing_strength: 0.8, algorithm: smoothquant}
    GPTQModifier:
      targets: [Linear]
      ignore: [lm_head]
      scheme: W8A8
      bypass_divisibility_checks: false
      requires_calibration_data: true
      block_size: 128
      dampening_frac: 0.01
      actorder: static
      batched_quantization: auto
"""  # noqa: E501  # as it was written

MAPPED = """
default_stage:
  default_modifiers:
    SmoothQuantModifier:
      requires_calibration_data: true
      smoothing_strength: 0.8
      mappings:
      - - ['re:.*q_proj', 're:.*k_proj', 're:.*v_proj']
        - re:.*input_layernorm
      - - ['re:.*gate_proj', 're:.*up_proj']
        - re:.*post_attention_layernorm
      algorithm: smoothquant
    QuantizationModifier:
      targets: [Linear]
      ignore: []
      scheme:
        W8A8: [Linear]
      bypass_divisibility_checks: false
      requires_calibration_data: false
"""

MIXED = """
default_stage:
  default_modifiers:
    QuantizationModifier:
      config_groups:
        group_0:
          targets: ['re:.*self_attn.*_proj$']
          weights:
            num_bits: 8
            type: float
            symmetric: true
            group_size: null
            strategy: channel
            block_structure: null
            dynamic: false
            actorder: null
            scale_dtype: null
            zp_dtype: null
            observer: memoryless_minmax
            observer_kwargs: {}
          input_activations:
            num_bits: 8
            type: float
            symmetric: true
            group_size: null
            strategy: token
            block_structure: null
            dynamic: true
            actorder: null
            scale_dtype: null
            zp_dtype: null
            observer: null
            observer_kwargs: {}
          output_activations: null
          format: null
        group_1:
          targets: ['re:.*down_proj$']
          weights:
            num_bits: 4
            type: !!python/object/apply:compressed_tensors.quantization.quant_args.QuantizationType [
              int]
            symmetric: false
            group_size: 128
            strategy: group
            block_structure: null
            dynamic: false
            actorder: null
            scale_dtype: null
            zp_dtype: torch.int8
            observer: memoryless_minmax
            observer_kwargs: {}
          input_activations: null
          output_activations: null
          format: pack-quantized
      targets: [Linear]
      ignore: [lm_head]
      bypass_divisibility_checks: false
      requires_calibration_data: false
"""  # noqa: E501  # as it was written

CACHE = """
default_stage:
  default_modifiers:
    QuantizationModifier:
      targets: [Linear]
      ignore: []
      scheme: FP8
      kv_cache_scheme:
        num_bits: 8
        type: float
        symmetric: true
        group_size: null
        strategy: tensor
        block_structure: null
        dynamic: false
        actorder: null
        scale_dtype: null
        zp_dtype: null
        observer: null
        observer_kwargs: {}
      bypass_divisibility_checks: false
      requires_calibration_data: true
"""

AWQ = """
default_stage:
  default_modifiers:
    AWQModifier:
      requires_calibration_data: true
      offload_device: !!python/object/apply:llmcompressor.sentinel.Sentinel [not_provided,
        /usr/lib/python3/dist-packages/llmcompressor/sentinel.py]
      duo_scaling: true
      n_grid: 20
    QuantizationModifier:
      targets: [Linear]
      ignore: []
      scheme: W4A16_ASYM
      bypass_divisibility_checks: false
      requires_calibration_data: false
"""
