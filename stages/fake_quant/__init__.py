"""Fake quantization in a forward pass: inputs, keys and values as an engine will round them."""
