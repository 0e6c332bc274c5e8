"""Stage `eval`: perplexity of both models, KL divergence and top-1 agreement between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.errors import StageFailed
from pipeline.stage import Artifact, Site, Stage, Survey, Task
from stages.compute.numerics import Numerics
from stages.eval.estimates import eval_estimate
from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_names import needs_class

if TYPE_CHECKING:
    from stages.eval.metrics import Sums


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """Device and threads; everything else comes with the hidden states."""

    numerics: Numerics = field(default_factory=Numerics)


class Eval(Stage):
    """Makes `eval.json`, and the section `eval` of result.json.

    Inputs `original` and `compressed` are results of `hidden` over the same `tokens`.
    """

    kind: ClassVar[str] = "eval"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("compressed-tensors", "torch", "transformers")
    modules: ClassVar[tuple[str, ...]] = ("stages.eval.run",)
    Config: ClassVar[type] = EvalConfig

    def survey(self, site: Site) -> Survey:
        model = site.facts.get("model")
        if isinstance(model, Blueprint) and model.outlined:
            return Survey(problems=(needs_class(model),))
        estimate = eval_estimate(site.facts.get("model"), site.facts.get("tokens"))
        return Survey(estimates={None: estimate})

    def run(self, task: Task) -> None:
        numerics: Numerics = self.config.numerics
        numerics.apply()
        from stages.eval.evaluated_model import FOLDER, compressed, original
        from stages.eval.run import compare_models
        from stages.eval.samples import Samples

        inputs, draft = task.inputs, task.outputs["out"]
        blueprint = Blueprint.load(inputs["model"])
        folder = inputs["checkpoint"].path / FOLDER
        tokens = inputs["tokens"]
        sums = compare_models(
            blueprint,
            (original(inputs["source"], blueprint), compressed(folder, blueprint)),
            (inputs["original"].path, inputs["compressed"].path),
            Samples.load(tokens, _batch_size(inputs)),
            numerics.device,
            task.progress,
        )
        result = _result(sums, tokens.meta["dataset"])
        draft.write_json("eval.json", result)
        draft.meta["result"] = {"eval": result}


def _batch_size(inputs: Mapping[str, Artifact]) -> int:
    sizes = {int(inputs[name].meta["batch_size"]) for name in ("original", "compressed")}
    if len(sizes) > 1:
        raise StageFailed(
            "the hidden states of the two models were made with different batch sizes",
            remedy="give both nodes of kind hidden the same batch_size",
        )
    return sizes.pop()


def _result(sums: Sums, dataset: str) -> dict[str, Any]:
    from stages.eval.metrics import perplexity

    try:
        before = perplexity(sums.nll_original, sums.tokens)
        after = perplexity(sums.nll_compressed, sums.tokens)
    except OverflowError as error:
        raise StageFailed(
            "the perplexity is beyond what a number can say: mean negative log-likelihoods are "
            f"{sums.nll_original / sums.tokens:.4g} (original) and "
            f"{sums.nll_compressed / sums.tokens:.4g} (compressed)",
            remedy="the model is broken: look at the layers with the largest error in result.json",
        ) from error
    return {
        "perplexity": {
            "original": before,
            "compressed": after,
            "tokens": sums.tokens,
            "dataset": dataset,
        },
        "kl": sums.kl / sums.tokens,
        "top1_agreement": sums.agreed / sums.tokens,
    }
