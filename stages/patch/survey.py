"""Survey and output of the stages that make a blueprint."""

from __future__ import annotations

from pipeline.stage import Draft, Estimate, Survey
from stages.model.blueprint import FILE, Blueprint


def survey_of(blueprint: Blueprint | None, *, memory: int, seconds: float) -> Survey:
    """The layers of a blueprint as members, itself as facts; None: nothing is known yet.

    memory (bytes) and seconds are what making it takes.
    """
    if blueprint is None:
        return Survey()
    size = 300 * sum(1 for _ in blueprint.linears())
    return Survey(
        members=blueprint.members,
        facts=blueprint,
        warnings=blueprint.notes,
        estimates={None: Estimate(bytes=size, memory=memory, seconds=seconds)},
    )


def write(blueprint: Blueprint, draft: Draft) -> None:
    """Write a blueprint where `Blueprint.load` finds it."""
    draft.write_json(FILE, blueprint.to_json())
    draft.meta.update(architecture=blueprint.architecture, layers=len(blueprint.layers))
