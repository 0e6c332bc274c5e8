"""Quantization schemes: what a config may say, each module's format, and which engines run it."""
