"""Stage `generate`: greedy continuations of a few prompts by both models, side by side."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.stage import Site, Stage, Survey
from stages.compute.numerics import Numerics, summed
from stages.eval.estimates import generate_estimate
from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_names import needs_class
from stages.model.traits.learned_positions import learned_positions

WHOLE = "whole"


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateConfig:
    """`max_model_bytes`: a larger model is not run, because generation needs all its weights."""

    prompts: list[str] = field(default_factory=list)
    """Texts that both models continue greedily; an empty list generates nothing."""
    max_new_tokens: int = 24
    """Number of tokens added to a prompt."""
    max_model_bytes: int = field(default=4 * 10**9, metadata={"unit": "bytes"})
    numerics: Numerics = field(default_factory=Numerics, metadata={"key": summed})

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {self.max_new_tokens}", remedy="give 1 or more")
        if any(not prompt for prompt in self.prompts):
            raise UserError("a prompt is empty", remedy="give every prompt at least one character")


@dataclass(frozen=True, eq=False)
class Generate(Stage):
    """Makes `generate.json`, and the section `generations` of result.json.

    The input `whole` is the blueprint of the original where that is not `model`, the compressed
    one's; where it is, it is no input of the node.
    """

    kind: ClassVar[str] = "generate"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("compressed-tensors", "torch", "transformers")
    work: ClassVar[tuple[str, ...]] = ("stages.eval.generate_run",)
    Config: ClassVar[type] = GenerateConfig
    apart: bool = True
    """Whether the two models have blueprints of their own; until it is surveyed, they may have."""

    def demands(self) -> dict[str, tuple[str, ...]]:
        return {WHOLE: ("out",) if self.apart else ()}

    def survey(self, site: Site) -> Survey:
        model = site.facts.get("model")
        if isinstance(model, Blueprint) and model.outlined:
            return Survey(problems=(needs_class(model),))
        config: GenerateConfig = self.config
        limit = learned_positions(model) if isinstance(model, Blueprint) else None
        if limit is not None and config.prompts and config.max_new_tokens >= limit:
            problem = UserError(
                f"eval.max_new_tokens is {config.max_new_tokens}, but the model has learned "
                f"positions for {limit} tokens, prompt included",
                remedy="give less",
            )
            return Survey(problems=(problem,))
        estimate = generate_estimate(
            site.facts.get("model"),
            config.max_model_bytes,
            2 * len(config.prompts) * config.max_new_tokens,
            config.numerics.device,
        )
        apart = site.facts.get(WHOLE, model) != model
        return Survey(estimates={None: estimate}, settled=replace(self, apart=apart))
