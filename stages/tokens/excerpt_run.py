"""Run `excerpt`: rows of a token set, evenly spread over all."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import load_file, save_file

from pipeline.stage import Task
from stages.model.artifact_names import TOKENS
from stages.tokens.excerpt import ExcerptConfig


def run(config: ExcerptConfig, task: Task) -> None:
    """Write `tokens.safetensors` with at most `config.sequences` rows of that of `tokens`."""
    tokens, draft = task.inputs["tokens"], task.outputs["out"]
    whole = load_file(tokens.file(TOKENS))
    count = len(whole["lengths"])
    rows = np.arange(min(config.sequences, count)) * count
    rows //= len(rows)
    taken = {name: np.ascontiguousarray(value[rows]) for name, value in whole.items()}
    save_file(taken, draft.path / TOKENS)
    draft.meta.update(tokens.meta)
    draft.meta.update(samples=len(rows), tokens=int(taken["lengths"].sum()))
