"""Run `card`: link a saved checkpoint, and write its README.md and provenance.json anew."""

from __future__ import annotations

import json
from functools import partial

from pipeline.stage import Task
from stages.formats.provenance import DIGEST, FILES, PROVENANCE
from stages.model.artifact_names import CHECKPOINT
from stages.save.card import CardConfig
from stages.save.model_card import CARD, with_quality
from stages.save.run import proven
from stages.weights.writer import link

ANEW = (CARD, PROVENANCE)
MEASURES = ("eval", "tasks")
"""Inputs whose results the card tells: eval.json and tasks.json."""


def run(config: CardConfig, task: Task) -> None:
    """Write `checkpoint/`; no weight is read or copied where the file system has hard links."""
    del config
    saved, draft = task.inputs["checkpoint"], task.outputs["out"]
    measured = {name: task.inputs[name] for name in MEASURES if name in task.inputs}
    source = saved.path / CHECKPOINT
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.is_file() and str(name) not in ANEW:
            target = draft.path / CHECKPOINT / name
            target.parent.mkdir(parents=True, exist_ok=True)
            link(path, target)
    text = (source / CARD).read_text(encoding="utf-8")
    told = with_quality(
        text, **{name: each.json(f"{name}.json") for name, each in measured.items()}
    )
    (draft.path / CHECKPOINT / CARD).write_text(told, encoding="utf-8")
    content = json.loads((source / PROVENANCE).read_bytes())
    kept = {name: value for name, value in content.items() if name not in (FILES, DIGEST)}
    keys = {name: each.key for name, each in measured.items()}
    kept["keys"] = {**kept["keys"], "save": saved.key, **keys}
    draft.write_last(f"{CHECKPOINT}/{PROVENANCE}", partial(proven, kept))
