"""Stage save: a checkpoint folder that vLLM, SGLang and transformers load."""
