"""Fake quantization in a forward pass: inputs, keys and values rounded as an engine does."""
