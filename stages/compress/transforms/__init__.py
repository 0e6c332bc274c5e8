"""Transforms: equivalent rewrites of a model that make it easier to quantize."""
