"""Readers of quantized checkpoints (AWQ, GPTQ, FP8, ModelOpt, compressed-tensors) as dense ones."""
