"""Choice of the calibration batch size from the model, the sequence length and a memory budget.

All stages that read or make boundaries choose alike, and the choice is part of their keys.
"""

from __future__ import annotations

from dataclasses import replace

import psutil

from pipeline.machine.gpus import gpu_of
from pipeline.stage import Site
from stages.calibrate.config import CalibrateConfig
from stages.calibrate.estimate import sequence_bytes
from stages.model.blueprint import Blueprint

SHARE = 16
"""The forward of a batch may take this part of the memory of its device, used or not."""
ASSUMED_GPU = 80_000_000_000
"""Memory of a GPU that is not on the machine that makes a plan."""


def settled(config: CalibrateConfig, device: str, site: Site) -> CalibrateConfig:
    """`config` with a batch size, chosen where it is left open and model and tokens are known."""
    blueprint, tokens = site.facts.get("model"), site.facts.get("tokens")
    if config.batch_size is not None:
        return config
    if not isinstance(blueprint, Blueprint) or not isinstance(tokens, dict):
        return config
    width = tokens["sequence_length"]
    each = max(sequence_bytes(blueprint, layer, width, device) for layer in blueprint.layers)
    budget = config.batch_memory or capacity(device) // SHARE
    return replace(config, batch_size=fitting(budget, each, tokens["samples"]))


def fitting(budget: int, each: int, most: int) -> int:
    """The largest power of two of sequences of `each` bytes within `budget`; 1 to `most`.

    Powers of two, so that machines of about the same memory choose the same.
    """
    count = max(1, budget // max(1, each))
    return min(1 << (count.bit_length() - 1), most)


def capacity(device: str) -> int:
    """Bytes of the memory that a device computes in, free or not."""
    if device == "cpu":
        return int(psutil.virtual_memory().total)
    gpu = gpu_of(device)
    return ASSUMED_GPU if gpu is None else gpu.total_bytes
