"""Stage `hidden`: final hidden states, the inputs of the lm_head, for every sampled token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.stage import Site, Stage, Survey
from stages.compute.numerics import Numerics, summed
from stages.eval.estimates import hidden_estimate
from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_names import needs_class
from stages.model.proofs.proof_input import boundary_width, proof_problem
from stages.model.traits.learned_positions import length_problem


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenConfig:
    """`batch_size` sequences run at once; it can affect the order of sums."""

    batch_size: int = 4
    numerics: Numerics = field(default_factory=Numerics, metadata={"key": summed})

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size is {self.batch_size}", remedy="give 1 or more")


@dataclass(frozen=True, eq=False)
class Hidden(Stage):
    """Makes `00000.safetensors`, ...: for each batch `hidden` [b, T, hidden] after the final norm.

    With an input `checkpoint` (the result of save) the compressed model runs, with the inputs
    fake-quantized as engines do; without it the original.
    """

    kind: ClassVar[str] = "hidden"
    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = ("compressed-tensors", "torch", "transformers")
    work: ClassVar[tuple[str, ...]] = ("stages.eval.hidden_run",)
    lighter: ClassVar[str] = "lower eval.batch_size, which changes the result a little"
    Config: ClassVar[type] = HiddenConfig

    def survey(self, site: Site) -> Survey:
        unproven = proof_problem(site)
        if unproven is not None:
            return Survey(problems=(unproven,))
        model = site.facts.get("model")
        if isinstance(model, Blueprint) and model.outlined:
            return Survey(problems=(needs_class(model),))
        config: HiddenConfig = self.config
        tokens = site.facts.get("tokens")
        problem = length_problem(model, tokens, "eval.dataset.sequence_length")
        if problem is not None:
            return Survey(problems=(problem,))
        handed = boundary_width(site, model) if isinstance(model, Blueprint) else None
        estimate = hidden_estimate(model, tokens, config.batch_size, config.numerics.device, handed)
        return Survey(estimates={None: estimate})
