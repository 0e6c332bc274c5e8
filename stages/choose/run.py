"""Run `choose`: from the sensitivities of all layers to a candidate for every unit."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pipeline.errors import StageFailed
from pipeline.stage import Task
from stages.choose.expected_loss import damages, measure_of
from stages.choose.knapsack import Option, choose
from stages.choose.stage import FILE, ChooseConfig
from stages.model.artifact_names import SENSITIVITY
from stages.model.blueprint import Blueprint
from stages.schemes.candidates import Unit, Units, units_of
from stages.schemes.sizes import label


def run(config: ChooseConfig, task: Task) -> None:
    """Write choice.json: the choice with the least damage within the budget."""
    blueprint = Blueprint.load(task.inputs["model"])
    units = units_of(config.scheme, blueprint)
    budget = config.scheme.budget
    bits = None if budget is None else budget.bits_per_weight
    if bits is None or units.problems:
        raise ValueError("the survey lets no such scheme pass")
    modules: dict[str, Any] = {}
    for index in range(len(blueprint.layers)):
        modules |= task.inputs[f"layers/{index}"].json(SENSITIVITY)["modules"]
    options = options_of(units, modules)
    elements = sum(unit.elements for unit in units.units)
    try:
        chosen = choose(options, bits * elements / 8)
    except ValueError as error:
        raise StageFailed(
            f"no choice under {bits:g} bits per weight: {error}",
            remedy="give another scheme.budget.bits_per_weight",
        ) from error
    draft = task.outputs["out"]
    found = described(units, chosen, bits, elements) | {"measure": measure_of(modules)}
    draft.write_json(FILE, found)
    draft.meta["result"] = {"choice": {k: v for k, v in found.items() if k != "units"}}


def options_of(units: Units, modules: dict[str, Any]) -> list[list[Option]]:
    """The options of every unit: its candidates with their sizes and damages."""
    by_unit = damages(units, modules)
    return [
        [
            Option(name=name, size=size, damage=damage[name])
            for name, size in unit.candidates.items()
        ]
        for unit, damage in zip(units.units, by_unit, strict=True)
    ]


def described(units: Units, chosen: list[Option], budget: float, elements: int) -> dict[str, Any]:
    """Content of choice.json: sizes, number of modules of each format, candidate of every unit."""
    low, high = units.range()
    counts: Counter[str] = Counter()
    for unit, option in zip(units.units, chosen, strict=True):
        counts[label(units.formats[option.name])] += len(unit.linears)
    return {
        "budget": budget,
        "bits_per_weight": 8 * sum(option.size for option in chosen) / elements,
        "lowest": low,
        "highest": high,
        "damage": sum(option.damage for option in chosen),
        "counts": dict(counts),
        "units": [
            {"layer": unit.layer, "modules": _names(unit), "candidate": option.name}
            for unit, option in zip(units.units, chosen, strict=True)
        ],
    }


def _names(unit: Unit) -> list[str]:
    return [linear.name for linear in unit.linears]
