"""Quantization schemes, and the compressed-tensors layout that checkpoints are written in."""
