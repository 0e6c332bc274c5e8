"""Run `generate`: greedy continuations of prompts by a model whose weights all fit into memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.stage import Task
from stages.eval.estimates import model_bytes
from stages.eval.evaluated_model import Candidate, compressed, original
from stages.eval.generate import WHOLE, GenerateConfig
from stages.eval.whole_model import running
from stages.model.artifact_names import CHECKPOINT, MODEL
from stages.model.blueprint import Blueprint
from stages.model.compute_dtype import computed
from stages.model.skeleton import Skeleton, skeleton
from stages.model.tokenizer.load import load_tokenizer
from stages.model.traits.learned_positions import learned_positions


def run(config: GenerateConfig, task: Task) -> None:
    """Write generate.json: both models' continuations, or why a model that large was not run."""
    blueprint = Blueprint.load(task.inputs["model"])
    size = model_bytes(computed(blueprint, config.numerics.device))
    limit, generations, not_checked = config.max_model_bytes, list[dict[str, str]](), list[str]()
    if size > limit:
        not_checked.append(
            f"generations: not run: a model of {size / 1e9:.1f} GB does not fit the "
            f"generation budget of {limit / 1e9:.1f} GB (max_model_bytes)"
        )
    else:
        generations = generated(config, task, blueprint)
    result = {"generations": generations, "not_checked": not_checked}
    draft = task.outputs["out"]
    draft.write_json("generate.json", result)
    draft.meta["result"] = result


def generated(config: GenerateConfig, task: Task, blueprint: Blueprint) -> list[dict[str, str]]:
    """What the original and the compressed model make of every prompt."""
    config.numerics.apply()
    source, device = task.inputs["source"], config.numerics.device
    whole = Blueprint.load(task.inputs[WHOLE]) if WHOLE in task.inputs else blueprint
    bones = skeleton(computed(whole, device), device=device)
    tokenizer = load_tokenizer(source.path / MODEL)
    options = {
        "max_new_tokens": config.max_new_tokens,
        **stopping(source.path / MODEL, blueprint.config),
    }
    limit = learned_positions(blueprint)
    longest = max((len(tokenizer(prompt).input_ids) for prompt in config.prompts), default=0)
    if limit is not None and longest + config.max_new_tokens > limit:
        raise UserError(
            f"a prompt has {longest} tokens and eval.max_new_tokens is {config.max_new_tokens}, "
            f"but the model has learned positions for {limit} tokens",
            remedy=f"say eval.max_new_tokens={max(1, limit - longest)}, or give shorter prompts",
        )
    before = continuations(bones, original(source, whole), tokenizer, config.prompts, options)
    task.progress(0.5, "compressed")
    if whole is not blueprint:
        bones = skeleton(computed(blueprint, device), device=device)
    checkpoint = compressed(task.inputs["checkpoint"].path / CHECKPOINT, blueprint)
    after = continuations(bones, checkpoint, tokenizer, config.prompts, options)
    return [
        {"prompt": prompt, "original": first, "compressed": second}
        for prompt, first, second in zip(config.prompts, before, after, strict=True)
    ]


def stopping(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `generate` that end it at the model's own end-of-text ids.

    They are in `folder`/generation_config.json, or else in `config`, its config.json.
    """
    path = folder / "generation_config.json"
    settings = {**config, **(json.loads(path.read_bytes()) if path.is_file() else {})}
    end = settings.get("eos_token_id")
    first = end[0] if isinstance(end, list) else end
    padding = settings.get("pad_token_id")
    return {"eos_token_id": end, "pad_token_id": first if padding is None else padding}


@torch.no_grad()
def continuations(
    bones: Skeleton,
    candidate: Candidate,
    tokenizer: Any,
    prompts: Sequence[str],
    options: Mapping[str, Any],
) -> list[str]:
    """The greedy continuation of each prompt, without special tokens.

    `options` are passed to transformers' `generate`. Prompts run one at a time: padding on the left
    would change the results of models with a state, or with activations quantized per tensor.
    """
    model: Any = bones.model
    texts = []
    with running(bones, candidate):
        for prompt in prompts:
            given = tokenizer(prompt, return_tensors="pt").input_ids.to(bones.device)
            generated = model.generate(
                given,
                attention_mask=torch.ones_like(given),
                do_sample=False,
                use_cache=True,
                **options,
            )
            texts.append(
                tokenizer.decode(
                    generated[0, given.shape[1] :],
                    skip_special_tokens=True,
                    clean_up_tokenization_spaces=False,
                )
            )
    return texts
