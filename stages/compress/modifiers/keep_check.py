"""Plan-time checks of `modifier=keep`: modules whose stored numbers another format cannot hold."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.errors import UserError
from pipeline.stage import Site
from stages.model.blueprint import Blueprint
from stages.quantized.compatibility import why_not
from stages.quantized.open import open_source
from stages.quantized.source import QuantizedSource
from stages.schemes.resolve import Resolution

ANEW = "say modifier=rtn or modifier=gptq to quantize anew"


def unkeepable(site: Site, blueprint: Blueprint, found: Resolution) -> Iterator[UserError]:
    """One error for each reason, with the modules that it is true of; reads headers only.

    Without weights (mode plan) only a dense source is told.
    """
    facts = site.facts.get("source")
    artifact = site.artifact("source")
    source = None if artifact is None else open_source(artifact)
    dense = source is not None and not isinstance(source, QuantizedSource)
    if dense or (source is None and facts is not None and not _quantized(facts)):
        yield UserError(
            "modifier keep takes over what the source is quantized to, and this source is dense",
            remedy=ANEW,
        )
    if not isinstance(source, QuantizedSource):
        return
    reasons: dict[str, list[str]] = {}
    for module in (*blueprint.linears(), *blueprint.ends()):
        wanted = found.modules[module.name].scheme.weights if module.name in found.modules else None
        if wanted is None:
            continue
        stored = source.modules.get(module.prefix)
        cut = blueprint.cuts.get(f"{module.prefix}.weight")
        reason: str | None
        fused = None if cut is None else source.part_grid(cut)
        if fused is not None:
            reason = why_not(fused, wanted, module.in_features)
        elif stored is None:
            reason = source.why_dense(module.prefix)
        else:
            reason = stored.unfit or why_not(stored.grid, wanted, module.in_features)
        if reason is not None:
            pattern = re.sub(r"(?<=\.)\d+(?=\.)", "*", module.name)
            reasons.setdefault(reason, []).append(pattern)
    for reason, names in reasons.items():
        shown = list(dict.fromkeys(names))
        more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
        yield UserError(
            f"modifier keep cannot keep {', '.join(shown[:4])}{more}: {reason}",
            remedy=f"choose a scheme with the source's numbers, or {ANEW}, or put them in "
            "scheme.ignore",
        )


def _quantized(facts: object) -> bool:
    """Whether facts about a source say that it is quantized, in whatever way."""
    return bool(getattr(facts, "quantization", None) or getattr(facts, "blocks", None))
