"""Usual increase of perplexity for a width of weights and inputs: published and measured ranges.

Sources. 7B to 70B, WikiText-2 in windows of 2048: the table of the QServe/DeepCompressor README
(SmoothQuant W8A8; GPTQ and AWQ W4A16 g128; QuaRot, SpinQuant and Atom W4A4), llm-compressor's
imatrix document (Llama-3.1-8B W4A16, RTN to GPTQ), table 4 of the AWQ paper, arXiv 2306.00978
(INT3 g128), MXFP4 of Llama-3-8B from arXiv 2511.04214. Small: SmolLM2-135M, measured with this
project and with llm-compressor (README.md of presswork). Llama-3-70B, which loses far more than
others under every method, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SMALL = 1e9
"""Weights of a model below which ranges are those of small models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Usual:
    """Relative increases of perplexity for weights of at least `weights` bits, from low to high.

    `inputs`: bits of the modules' inputs at most; 16 for inputs that are not quantized. `small`:
    the range of models below SMALL weights, None where none was measured.
    """

    name: str
    weights: float
    inputs: int
    large: tuple[float, float]
    small: tuple[float, float] | None = None


USUAL = (
    Usual(name="4-bit weights and inputs", weights=3.8, inputs=4, large=(0.07, 0.40)),
    Usual(name="8-bit weights and inputs", weights=7, inputs=8, large=(0.0, 0.025)),
    Usual(name="8-bit weights", weights=7, inputs=16, large=(0.0, 0.01)),
    Usual(name="5- to 6-bit weights", weights=5, inputs=16, large=(0.0, 0.05), small=(0.0, 0.05)),
    Usual(name="4-bit weights", weights=3.8, inputs=16, large=(0.02, 0.12), small=(0.09, 0.31)),
    Usual(name="3-bit weights", weights=2.8, inputs=16, large=(0.12, 0.25)),
)
"""The first that a checkpoint falls under is its own; what has fewer bits has no usual range."""

PRUNING = frozenset({"sparsegpt", "wanda", "magnitude", "reap"})


def usual(size: Mapping[str, Any], config: Mapping[str, Any]) -> Usual | None:
    """The entry for the mean bits of the compressed weights, and the inputs that a config names.

    None where weights are pruned, and where nothing comparable is known.
    """
    bits = size.get("bits_per_weight")
    if bits is None or "whole_bits_per_weight" not in size or PRUNING & set(_modifiers(config)):
        return None
    inputs = min(_input_bits(config.get("scheme")), default=16)
    return next((each for each in USUAL if bits >= each.weights and inputs <= each.inputs), None)


def comparable(text: str) -> bool:
    """Whether perplexities on a text, described by its name or file, are those of the ranges."""
    return "wiki" in text.lower()


def beside(
    found: Usual, size: Mapping[str, Any], change: float, stderr: float | None, text: str
) -> str:
    """A phrase on an increase of perplexity on `text` beside the usual range.

    A judgement, two standard errors allowed, where the text is that of the ranges; else the range
    alone, with its text.
    """
    original = size.get("original_bits_per_weight")
    weights = 8 * size["original_bytes"] / original if original else None
    small = weights is not None and weights < SMALL
    low, high = found.small if small and found.small else found.large
    off = 2 * (stderr or 0.0)
    place = (
        "less than is usual"
        if change + off < low
        else "more than is usual"
        if change - off > high
        else "as is usual"
    )
    sizes = "models of 7B to 70B" if not small else "a model as small as this"
    if small and not found.small:
        sizes = "models of 7B to 70B, small ones lose more"
    span = f"+{100 * low:g} to +{100 * high:g} %"
    if not comparable(text):
        return f"to be seen beside {span} on another text, WikiText-2, for {found.name} in {sizes}"
    return f"{place} for {found.name} ({span} on WikiText-2 in {sizes})"


def _modifiers(config: Mapping[str, Any]) -> Iterator[str]:
    modifiers = config.get("modifier")
    for each in modifiers.values() if isinstance(modifiers, Mapping) else ():
        if isinstance(each, Mapping):
            yield str(each.get("kind"))


def _input_bits(scheme: Any) -> Iterator[int]:
    """Bits of all quantized inputs that a scheme, its groups or its candidates name."""
    if not isinstance(scheme, Mapping):
        return
    inputs = scheme.get("input_activations")
    if isinstance(inputs, Mapping) and isinstance(inputs.get("num_bits"), int):
        yield inputs["num_bits"]
    groups = scheme.get("groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        yield from _input_bits(group)
