"""Checks of scales: what is wrong, and what is unusual but sound.

Other writers than presswork use negative scales (with them a symmetric format has its extra code on
the side where it is needed) and scales of 0 for blocks of zeros. Both mean the weights that they
were made for, to every reader that multiplies by them.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.formats.layer_artifact import NEGATIVE
from stages.model.blueprint import STATES
from stages.quantized.stored_weight import SIGNED
from stages.verify.checkpoint_under_test import Stored, Subject

SCALES = ("weight_scale", "weight_global_scale", "input_scale", "input_global_scale")
STATE_SCALES = {f"{state}_{part}" for state in STATES for part in ("scale", "global_scale")}
NAN_EXPONENT = 255
KEPT = "keep"
"""The solver, in layer.json, of modules whose scales another writer chose."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What is said of a scale; `sound`: weights mean what they should all the same."""

    name: str
    text: str
    sound: bool

    def __str__(self) -> str:
        return f"{self.name} {self.text}"


def scale_findings(subject: Stored) -> Iterator[Finding]:
    """All that is not as presswork writes it: not finite, not positive, exponents that mean NaN."""
    weights = [[f"{prefix}.{part}" for part in SCALES] for prefix in subject.quantized]
    states = [name for name in subject.specs if name.rpartition(".")[2] in STATE_SCALES]
    for names in (*weights, states):
        stored = [name for name in names if name in subject.specs]
        for name, scale in subject.saved.read(stored).items():
            yield from _findings(name, scale)


def _findings(name: str, scale: Tensor) -> Iterator[Finding]:
    if scale.dtype == torch.uint8:
        if bool((scale == NAN_EXPONENT).any()):
            yield Finding(name=name, text="has an exponent that means NaN", sound=False)
        return
    values = scale.float()
    multiplies = name.endswith(".weight_scale")
    if not bool(torch.isfinite(values).all()):
        yield Finding(name=name, text="has non-finite entries", sound=False)
    elif bool((values < 0).any()):
        text = "has entries that are not positive: some are negative"
        yield Finding(name=name, text=text, sound=multiplies and scale.dtype in SIGNED)
    elif bool((values == 0).any()):
        text = "has entries that are not positive: some are 0"
        yield Finding(name=name, text=text, sound=multiplies)


def check_scales(subject: Subject) -> Iterator[str]:
    """Every scale is finite and positive, but where a source's were kept or a solver was asked.

    Of weights that were solved with `negative_scales`, layer.json says whether there are any.
    """
    kept = {
        module["prefix"]
        for info in subject.layer_info()
        for module in info["modules"].values()
        if module["solver"] == KEPT or module.get(NEGATIVE)
    }
    yield from wrong_scales(subject, kept)


def wrong_scales(subject: Stored, foreign: Container[str]) -> Iterator[str]:
    """What is wrong with scales; of the modules `foreign` the unusual is accepted."""
    for finding in scale_findings(subject):
        if not finding.sound or finding.name.rpartition(".")[0] not in foreign:
            yield str(finding)


def unusual_scales(subject: Stored) -> list[str]:
    """What is unusual but sound."""
    return [str(finding) for finding in scale_findings(subject) if finding.sound]
