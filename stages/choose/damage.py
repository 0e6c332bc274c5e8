"""What an output error of a module does to the model: the terms of the sum that is minimised.

Errors of different layers cannot be added as they are: the outputs differ in size by orders of
magnitude. Relative errors can, but a block that hardly changes the residual stream may be wrong
about it. So a module's relative output error counts by the share of the residual stream that its
block writes (`stages.calibrate.shares`). On SmolLM2-135M (modules rounded to 3 bits, 120 of them,
one after the other) the measured KL divergence follows this with a rank correlation of 0.79, and
the relative error alone with 0.42.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from stages.formats.candidates import Unit, Units

_EXPERT = re.compile(r"experts\.\d+\.")

Modules = Mapping[str, Mapping[str, Any]]


def damages(units: Units, modules: Modules) -> list[dict[str, float]]:
    """The damage of every candidate of every unit.

    `modules` holds what `sensitivity` found: `energy`, `share` and
    `candidates.<name>.relative_error`.
    """
    return [{name: damage(unit, name, modules) for name in unit.candidates} for unit in units.units]


def damage(unit: Unit, candidate: str, modules: Modules) -> float:
    """The sum over the projections of a unit of relative error times share.

    All experts of a projection are one: each counts by the energy of its outputs.
    """
    projections: dict[str, list[Mapping[str, Any]]] = {}
    for linear in unit.linears:
        key = _EXPERT.sub("experts.", linear.name)
        projections.setdefault(key, []).append(modules[linear.name])
    return sum(_of(rows, candidate) for rows in projections.values())


def _of(rows: Iterable[Mapping[str, Any]], candidate: str) -> float:
    energy = error = 0.0
    share = 0.0
    for row in rows:
        energy += row["energy"]
        error += row["energy"] * row["candidates"][candidate]["relative_error"]
        share = row["share"]
    return share * error / energy if energy > 0 else 0.0
