"""The shipped schemes as objects, read the way a config is."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from omegaconf import OmegaConf
from packaging.version import Version

from pipeline.config.schema import build
from stages.schemes.scheme import SchemeConfig, SchemeGroup

FOLDER = Path(__file__).parents[3] / "conf" / "scheme"
CHOOSES = "auto"  # among the others, so it is no scheme by itself
SIX_BITS = ("mxfp6a16", "mxfp6a8")
"""Schemes of floats that compressed-tensors packs from 0.20 on; before, they are refused."""
PACKS_SIX = Version(version("compressed-tensors")) >= Version("0.20.0")
SHIPPED = frozenset(path.stem for path in FOLDER.glob("*.yaml")) - {CHOOSES}
NAMES = tuple(sorted(SHIPPED if PACKS_SIX else SHIPPED - set(SIX_BITS)))
QUANTIZED = tuple(name for name in NAMES if name not in ("none", "unquantized", "mixed"))


def load(name: str) -> SchemeConfig:
    """`conf/scheme/<name>.yaml` checked against the schema."""
    return build(SchemeConfig, OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml")))


def group(name: str) -> SchemeGroup:
    """The one group of a shipped scheme."""
    ((_, found),) = load(name).ordered()
    return found
