"""Versions of what made a result, found without importing any of it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

DISTRIBUTIONS = (
    "presswork",
    "torch",
    "transformers",
    "compressed-tensors",
    "safetensors",
    "datasets",
    "numpy",
    "scipy",
    "numba",
    "hydra-core",
    "omegaconf",
)


def versions() -> dict[str, str]:
    """Name -> version of presswork, Python, the machine and the libraries that are installed."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
