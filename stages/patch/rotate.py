"""Stage `rotate`: the blueprint of a rotated model, whose tensors are rotated as they are read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from pipeline.errors import StageFailed
from pipeline.key import Json
from pipeline.machine.processor import in_key
from pipeline.stage import Site, Stage, Survey, Task
from stages.compute.rotation_steps import RotatedTensors
from stages.formats.quantization_config import untied
from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_names import needs_class
from stages.model.rotations.options import R1, RotationOptions
from stages.model.rotations.plan import problems, rotation_plan
from stages.model.rotations.proven import ProvenRotations
from stages.patch.survey import survey_of, write

ROTATIONS = "rotations"
"""The input under which it takes the result of node `rotations`."""
PENDING = "where this model may be rotated is proven first, on a small one of its class"
MEMORY = 200_000_000
SECONDS = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class RotateConfig:
    """The modifiers, one of which says how to rotate; torch's threads decide the order of sums."""

    modifiers: tuple[Any, ...] = field(default=(), metadata={"components": "modifier"})
    threads: int = 1

    @property
    def options(self) -> RotationOptions | None:
        """What the modifier that rotates asks for; None without one."""
        asked = (getattr(modifier, "rotation", None) for modifier in self.modifiers)
        return next((found for found in asked if isinstance(found, RotationOptions)), None)


@dataclass(frozen=True, eq=False)
class Rotate(Stage):
    """Writes `blueprint.json` of the rotated model; weights stay where they are, as they are.

    What reads a tensor by this blueprint gets it rotated: calibration, solvers, propagation and the
    checkpoint need not know. The lm_head and the embedding are tied no more once R1 turned them.
    Its facts are the blueprint.
    """

    kind: ClassVar[str] = "rotate"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    Config: ClassVar[type] = RotateConfig
    config: RotateConfig

    def semantics(self, member: str | None) -> Json:
        """The rotation alone, not the other modifiers; and on what it is computed."""
        del member
        options = self.config.options
        return {
            "rotation": None if options is None else options.asked(),
            "computed": {"processor": in_key(), "threads": self.config.threads},
        }

    def survey(self, site: Site) -> Survey:
        blueprint, options = site.facts.get("model"), self.config.options
        if not isinstance(blueprint, Blueprint):
            return Survey()
        if options is None:  # nobody reads it, or a stage that does will say that no modifier asks
            open_yet = replace(blueprint, rotation=RotatedTensors())
            return survey_of(open_yet, memory=MEMORY, seconds=SECONDS)
        if blueprint.outlined:
            return Survey(problems=(needs_class(blueprint),))
        if R1 in options.rotations and (missing := options.problem(R1, blueprint.hidden_size)):
            return Survey(problems=(missing,))
        found = site.artifact(ROTATIONS)
        if found is None:
            open_yet = replace(blueprint, rotation=RotatedTensors(asked=options.asked()))
            return replace(survey_of(open_yet, memory=MEMORY, seconds=SECONDS), notes=(PENDING,))
        proven = ProvenRotations.load(found)
        if refused := tuple(problems(blueprint, proven, options)):
            return Survey(problems=refused)
        return survey_of(self._rotated(blueprint, proven, options), memory=MEMORY, seconds=SECONDS)

    def run(self, task: Task) -> None:
        options = self.config.options
        if options is None:
            raise StageFailed(
                f"{task.node_name} rotates the model, and no modifier says how",
                remedy="add one (modifier=[spinquant,gptq]), or say graph.roles.blueprint=patch",
            )
        whole, proven = Blueprint.load(task.inputs["model"]), task.inputs[ROTATIONS]
        rotated = self._rotated(whole, ProvenRotations.load(proven), options)
        draft = task.outputs["out"]
        write(rotated, draft)
        if rotated.rotation is not None:
            draft.meta["result"] = {"rotation": _told(rotated, rotated.rotation)}

    def _rotated(
        self, blueprint: Blueprint, proven: ProvenRotations, options: RotationOptions
    ) -> Blueprint:
        plan = rotation_plan(blueprint, proven, options, threads=self.config.threads)
        if plan.aliases:
            blueprint = replace(blueprint.untied(), config=untied(blueprint.config))
        return replace(blueprint, rotation=plan)


def _told(rotated: Blueprint, rotation: RotatedTensors) -> dict[str, Any]:
    """What is rotated, in result.json: options, sizes, and in how many layers values are."""
    residual = rotation.rotations.get(R1)
    values = [spec.size for name, spec in rotation.rotations.items() if name != R1]
    return {
        **rotation.asked,
        "tensors": len(rotation.steps),
        "untied": bool(rotation.aliases),
        "layers": len(rotated.layers),
        "residual": None
        if residual is None
        else {"size": residual.size, "keeps_mean": residual.keeps_mean},
        "values": {"layers": len(values), "sizes": sorted(set(values))},
    }
