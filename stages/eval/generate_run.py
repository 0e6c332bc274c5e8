"""Greedy continuations of prompts by a model whose weights all fit into memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from pipeline.errors import UserError
from stages.eval.evaluated_model import Candidate
from stages.fake_quant.activations import simulated_inputs
from stages.fake_quant.attention_states import simulated_states
from stages.model.layer_tensors import all_tensors
from stages.model.skeleton import Skeleton


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a model folder; UserError if it is missing or cannot be loaded."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError, KeyError, TypeError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"no text can be generated: the model's tokenizer cannot be loaded: {reason}",
            remedy="put its tokenizer files beside the weights, or leave out the node generate",
        ) from error


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
    tensors = all_tensors(candidate.blueprint, candidate.source)
    model: Any = bones.model
    texts = []
    layers = range(len(bones.layers))
    with (
        bones.materialized(tensors),
        simulated_inputs(bones.model, candidate.rules),
        simulated_states(bones, layers, candidate.states),
    ):
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
