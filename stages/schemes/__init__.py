"""Quantization schemes: config schema, the scheme of every module, and engine support."""
