"""Figures behind the estimates of a plan: memory of a process, speed of a machine, shares.

They decide no result. Bytes are those of a process that has imported what a stage needs, before it
reads a weight.
"""

from __future__ import annotations

NUMPY_PROCESS = 100_000_000
HEADERS_PROCESS = 200 * 2**20
"""Reads headers and config.json; no torch."""
SCIPY_PROCESS = 300_000_000
EVAL_PROCESS = 500 * 2**20
"""torch and transformers, and a model without weights."""
LOAD_PROCESS = 600_000_000
"""torch and transformers, to convert what is not safetensors."""
TOKENIZER_PROCESS = 600 * 2**20
"""A tokenizer library and a small dataset."""
COMPRESS_PROCESS = 700_000_000
"""torch and compressed-tensors, which brings all of transformers."""
MODEL_PROCESS = 700 * 2**20
"""torch and transformers, and a model without weights that hooks or gradients go through."""

PASSED_SHARE = 4
"""Activations that pass from layer to layer may fill a quarter of a memory, used or not."""

CORE_FLOPS = 2e10
"""Floating-point operations a second of a solver in float32, on one core."""
FORWARD_FLOPS = 4e10
"""Of forward and backward passes, on a few cores."""
EVAL_FLOPS = 6e10
"""Of forward passes in float32, on two cores with AVX2."""
