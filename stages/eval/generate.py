"""Stage `generate`: greedy continuations of a few prompts by both models, side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.stage import Site, Stage, Survey, Task
from stages.compute.numerics import Numerics
from stages.eval.estimates import generate_estimate, model_bytes
from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_names import needs_class
from stages.model.compute_dtype import computed


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateConfig:
    """`max_model_bytes`: a larger model is not run, because generation needs all its weights."""

    prompts: list[str] = field(default_factory=list)
    """Texts that both models continue greedily; an empty list generates nothing."""
    max_new_tokens: int = 24
    """Number of tokens added to a prompt."""
    max_model_bytes: int = 4 * 10**9
    numerics: Numerics = field(default_factory=Numerics)

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {self.max_new_tokens}", remedy="give 1 or more")
        if any(not prompt for prompt in self.prompts):
            raise UserError("a prompt is empty", remedy="give every prompt at least one character")


class Generate(Stage):
    """Makes `generate.json`, and the section `generations` of result.json."""

    kind: ClassVar[str] = "generate"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("compressed-tensors", "torch", "transformers")
    modules: ClassVar[tuple[str, ...]] = ("stages.eval.generate_run",)
    Config: ClassVar[type] = GenerateConfig

    def survey(self, site: Site) -> Survey:
        model = site.facts.get("model")
        if isinstance(model, Blueprint) and model.outlined:
            return Survey(problems=(needs_class(model),))
        config: GenerateConfig = self.config
        estimate = generate_estimate(
            site.facts.get("model"),
            config.max_model_bytes,
            2 * len(config.prompts) * config.max_new_tokens,
        )
        return Survey(estimates={None: estimate})

    def run(self, task: Task) -> None:
        blueprint = Blueprint.load(task.inputs["model"])
        size = model_bytes(computed(blueprint, self.config.numerics.device))
        limit = self.config.max_model_bytes
        if size > limit:
            note = (
                f"generations: not run: a model of {size / 1e9:.1f} GB does not fit the "
                f"generation budget of {limit / 1e9:.1f} GB (max_model_bytes)"
            )
            _write(task, [], [note])
        else:
            _write(task, self._generate(task, blueprint), [])

    def _generate(self, task: Task, blueprint: Blueprint) -> list[dict[str, str]]:
        config: GenerateConfig = self.config
        config.numerics.apply()
        from stages.eval.evaluated_model import FOLDER, compressed, original
        from stages.eval.generate_run import continuations, load_tokenizer, stopping
        from stages.model.skeleton import skeleton

        source, device = task.inputs["source"], config.numerics.device
        bones = skeleton(computed(blueprint, device), device=device)
        tokenizer = load_tokenizer(source.path / "model")
        options = {
            "max_new_tokens": config.max_new_tokens,
            **stopping(source.path / "model", blueprint.config),
        }
        before = continuations(
            bones, original(source, blueprint), tokenizer, config.prompts, options
        )
        task.progress(0.5, "compressed")
        checkpoint = compressed(task.inputs["checkpoint"].path / FOLDER, blueprint)
        after = continuations(bones, checkpoint, tokenizer, config.prompts, options)
        return [
            {"prompt": prompt, "original": first, "compressed": second}
            for prompt, first, second in zip(config.prompts, before, after, strict=True)
        ]


def _write(task: Task, generations: list[dict[str, str]], not_checked: list[str]) -> None:
    result = {"generations": generations, "not_checked": not_checked}
    draft = task.outputs["out"]
    draft.write_json("generate.json", result)
    draft.meta["result"] = result
