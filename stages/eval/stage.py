"""Stage `eval`: perplexity of both models, KL divergence and top-1 agreement between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pipeline.stage import Site, Stage, Survey
from stages.compute.numerics import Numerics, summed
from stages.eval.estimates import eval_estimate
from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_names import needs_class


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """Device and threads; everything else comes with the hidden states."""

    numerics: Numerics = field(default_factory=Numerics, metadata={"key": summed})


@dataclass(frozen=True, eq=False)
class Eval(Stage):
    """Makes `eval.json`, and the section `eval` of result.json.

    Inputs `original` and `compressed` are results of `hidden` over the same `tokens`.
    """

    kind: ClassVar[str] = "eval"
    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = ("compressed-tensors", "torch", "transformers")
    work: ClassVar[tuple[str, ...]] = ("stages.eval.run",)
    lighter: ClassVar[str] = "lower eval.batch_size, which changes the result a little"
    Config: ClassVar[type] = EvalConfig

    def survey(self, site: Site) -> Survey:
        model = site.facts.get("model")
        if isinstance(model, Blueprint) and model.outlined:
            return Survey(problems=(needs_class(model),))
        config: EvalConfig = self.config
        tokens, device = site.facts.get("tokens"), config.numerics.device
        estimate = eval_estimate(model, tokens, device)
        return Survey(estimates={None: estimate})
