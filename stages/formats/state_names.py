"""How quantized attention states, and the files of their scales, are called."""

from __future__ import annotations

CACHE = "cache.safetensors"
"""The file of a result of stage `cache`: scales by checkpoint name."""

STATES = ("q", "k", "v")
"""Queries, keys and values."""
