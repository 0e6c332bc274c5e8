"""Plan of a rotated model: the steps by which each tensor of the checkpoint is changed.

Light: neither torch nor transformers is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from pipeline.errors import UserError
from stages.compute.rotation import RotationSpec
from stages.compute.rotation_steps import RotatedTensors, Step
from stages.model.blueprint import Blueprint, Pair, Subgraph
from stages.model.pairs.proven import modules_matching
from stages.model.rotations.options import R1, R2, RotationOptions
from stages.model.rotations.proven import FusedValues, KindOfLayer, ProvenRotations


def rotation_plan(
    blueprint: Blueprint, proven: ProvenRotations, options: RotationOptions, *, threads: int = 1
) -> RotatedTensors:
    """What is done to every tensor of a model; UserError where a part of it cannot be rotated."""
    return replace(_Places(blueprint, proven, options).plan(), threads=threads)


def problems(
    blueprint: Blueprint, proven: ProvenRotations, options: RotationOptions
) -> Iterator[UserError]:
    """Why a model cannot be rotated so."""
    for which in options.rotations:
        if reason := proven.refused.get(which, ""):
            others = [r for r in options.rotations if r != which and not proven.refused.get(r)]
            yield UserError(
                f"{blueprint.architecture} cannot be rotated by {which}: {reason}",
                remedy=f"say rotations=[{', '.join(others)}]" if others else "leave spinquant out",
            )
    if all(not proven.refused.get(which) for which in options.rotations):
        try:
            rotation_plan(blueprint, proven, options)
        except UserError as error:
            yield error


class _Places:
    """The steps of a plan as they come together."""

    def __init__(
        self, blueprint: Blueprint, proven: ProvenRotations, options: RotationOptions
    ) -> None:
        self.blueprint = blueprint
        self.proven = proven
        self.options = options
        self.steps: dict[str, tuple[Step, ...]] = {}
        self.rotations: dict[str, RotationSpec] = {}
        self.owners: dict[str, str] = {}
        """Tensor of the checkpoint -> the parameter whose steps it has."""

    def plan(self) -> RotatedTensors:
        whole, aliases = self.blueprint, dict[str, str]()
        if R1 in self.options.rotations:
            aliases, whole = whole.aliases(), (whole.untied() if whole.tied else whole)
            self._turn(R1, whole.hidden_size)
            self._ends(whole)
        for layer in whole.layers:
            self._layer(layer)
        if R2 in self.options.rotations and self.rotations.keys() <= {R1}:
            raise UserError(
                "no decoder layer has values that R2 could rotate", remedy="say rotations=[R1]"
            )
        return RotatedTensors(
            steps=self.steps,
            rotations=self.rotations,
            aliases=aliases,
            asked=self.options.asked(),
        )

    def _turn(self, which: str, size: int, layer: int = 0, name: str = "") -> None:
        if problem := self.options.problem(which, size):
            raise problem
        keeps = self.proven.keeps_mean and which == R1
        self.rotations[name or which] = self.options.spec(which, size, layer, keeps_mean=keeps)

    def _ends(self, whole: Blueprint) -> None:
        """Embeddings, the norm before the lm_head, and the lm_head."""
        known = set[str]()
        for name in self.proven.embeddings:
            known |= self._add(whole.outside, f"{name}.weight", Step(rotate=R1))
        extra = [name for name in whole.carried if name.endswith(".weight")]
        if extra:
            raise UserError(
                f"R1 would not reach {_some(extra)}, which belong to no module of the model",
                remedy=f"say rotations=[{R2}]",
            )
        known |= self._norm(whole.outside, self.proven.norm, self.proven.offset, [whole.head])
        known |= self._add(whole.outside, f"{whole.head}.weight", Step(rotate=R1))
        hidden = whole.hidden_size
        strange = [
            name
            for name, stored in whole.outside.items()
            if stored not in known and hidden in whole.outside_shapes.get(name, ())
        ]
        if strange:
            raise UserError(
                f"R1 would not reach {_some(strange)}, which no text of the proof went through",
                remedy=f"say rotations=[{R2}]",
            )

    def _layer(self, layer: Subgraph) -> None:
        kind = next((k for k in self.proven.kinds if layer.name in k.layers), None)
        if kind is None:
            raise UserError(
                f"no layer of the small model on which rotations are proven is like {layer.name}",
                remedy="leave spinquant out",
            )
        if R1 in self.options.rotations:
            self._residual(layer, kind)
        if R2 in self.options.rotations:
            self._values(layer, kind)

    def _residual(self, layer: Subgraph, kind: KindOfLayer) -> None:
        for pattern in kind.norms:
            pairs = list(pattern.pairs(layer, kind.head_dim))
            if not pairs:
                raise _unlike(layer, pattern.source)
            for pair in pairs:
                self._norm(layer.tensors, pair.source, pair.norm_offset, pair.targets)
                for target in pair.targets:
                    self._linear(layer, target, -1, R1)
        for writer in kind.writers:
            modules = modules_matching(layer, writer)
            if not modules:
                raise _unlike(layer, writer)
            for module in modules:
                self._linear(layer, module, 0, R1)

    def _values(self, layer: Subgraph, kind: KindOfLayer) -> None:
        pairs = [pair for p in kind.values for pair in p.pairs(layer, kind.head_dim)]
        for pair in pairs:
            name = f"{R2} of {layer.name}"
            self._turn(R2, kind.head_dim, layer.index, name)
            self._value(layer, pair, name)
        for fused in kind.fused:
            self._fused_values(layer, fused, kind.head_dim)

    def _value(self, layer: Subgraph, pair: Pair, name: str) -> None:
        self._linear(layer, pair.source, 0, name)
        for target in pair.targets:
            self._linear(layer, target, -1, name)

    def _fused_values(self, layer: Subgraph, fused: FusedValues, head_dim: int) -> None:
        """Turn those outputs of a Linear for queries, keys and values that are values."""
        name = f"{R2} of {layer.name}"
        source, target = f"{layer.name}.{fused.source}", f"{layer.name}.{fused.target}"
        wide, read = (layer.shapes.get(f"{module}.weight") for module in (source, target))
        places = fused.places(wide[0], read[-1], head_dim) if wide and read else None
        if places is None:
            raise _unlike(layer, fused.source)
        self._turn(R2, head_dim, layer.index, name)
        self._linear(layer, source, 0, name, places)
        self._linear(layer, target, -1, name)

    def _linear(
        self,
        layer: Subgraph,
        module: str,
        dim: int,
        rotation: str,
        places: tuple[int, int] = (0, 0),
    ) -> None:
        """Turn a Linear's inputs (dim -1), or its outputs and what is added to them (dim 0).

        `places`: period and start of the outputs, where some of them are.
        """
        period, start = places
        step = Step(rotate=rotation, dim=dim, period=period, start=start)
        self._add(layer.tensors, f"{module}.weight", step)
        if dim == 0 and f"{module}.bias" in layer.tensors:
            self._add(layer.tensors, f"{module}.bias", replace(step, dim=-1))

    def _norm(
        self, tensors: Mapping[str, str], norm: str, offset: float, targets: Iterable[str]
    ) -> set[str]:
        """Fold a norm's weight into its readers, whose own rotation follows."""
        weight, bias = f"{norm}.weight", f"{norm}.bias"
        stored = tensors[weight]
        for target in targets:
            self._add(tensors, f"{target}.weight", Step(multiply=stored, offset=offset))
        known = {stored}
        if bias in tensors:
            known |= self._add(tensors, bias, Step(divide=stored, offset=offset))
            self._add(tensors, bias, Step(rotate=R1))
        return known | self._add(tensors, weight, Step(fill=1.0 - offset))

    def _add(self, tensors: Mapping[str, str], name: str, step: Step) -> set[str]:
        stored = tensors.get(name)
        if stored is None:
            raise UserError(f"there is no tensor {name} to rotate", remedy="leave spinquant out")
        if self.owners.setdefault(stored, name) != name:
            raise UserError(
                f"{name} and {self.owners[stored]} are one tensor in the checkpoint, and rotating "
                "one would change the other",
                remedy="leave spinquant out",
            )
        self.steps[stored] = (*self.steps.get(stored, ()), step)
        return {stored}


def _unlike(layer: Subgraph, pattern: str) -> UserError:
    return UserError(
        f"{layer.name} has no {pattern} as the small model of its class has, on which rotations "
        "are proven",
        remedy="leave spinquant out",
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
