"""Schemes that every model is tried with, and how much noise each one's weights carry."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """Overrides of a job; `noise`: root mean square of the weights' rounding, relative to theirs.

    `moves`: a transform moves factors between weights, so that norms must have changed.
    """

    name: str
    overrides: tuple[str, ...]
    noise: float
    moves: bool = False


SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        # e4m3 has steps of 1/8 between powers of two: relative errors up to 1/16
        Scheme(name="fp8_dynamic", overrides=("scheme=fp8_dynamic", "modifier=rtn"), noise=0.027),
        # groups of 32 normal numbers: the largest is about 2.1 sigma, in 7.5 steps
        Scheme(
            name="w4a16",
            overrides=("scheme=w4a16", "scheme.weights.group_size=32", "modifier=gptq"),
            noise=0.1,
        ),
        Scheme(name="nvfp4", overrides=("scheme=nvfp4", "modifier=rtn"), noise=0.1),
        # rows of normal numbers: the largest is about 2.5 sigma, in 127 steps
        Scheme(
            name="w8a8",
            overrides=("scheme=w8a8", "modifier=[smoothquant,gptq]"),
            noise=0.008,
            moves=True,
        ),
    )
}
