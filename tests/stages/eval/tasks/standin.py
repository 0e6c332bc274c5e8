"""Stand-ins for lm-evaluation-harness: a package `lm_eval`, and an interpreter that has vLLM."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

TASK = """
task: {name}
tag: [mine]
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{query}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
process_docs: !function helpers.same
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""

PACKAGE = {
    "__init__.py": """
import math
def simple_evaluate(model, tasks, limit=None, **given):
    import torch
    rows, samples = torch.tensor([[5, 6, 7], [8, 9, 10]]), []
    logits = model.inner(rows).logits.float().log_softmax(-1)
    for i, row in enumerate(rows):
        samples.append({"doc_id": i, "filter": "none", "acc": float(logits[i, 1, row[2]])})
    mean = sum(s["acc"] for s in samples) / 2
    return {
        "results": {t: {"alias": t, "acc,none": mean, "acc_stderr,none": 0.5} for t in tasks},
        "higher_is_better": {t: {"acc": True} for t in tasks},
        "n-samples": {t: {"original": 9, "effective": 2} for t in tasks},
        "n-shot": {t: 0 for t in tasks}, "versions": {t: 1.0 for t in tasks},
        "samples": {t: samples for t in tasks},
    }
""",
    "tasks/__init__.py": "class TaskManager:\n    def __init__(self, **given): pass\n",
    "tasks/arc/arc_easy.yaml": "tag:\n  - ai2_arc\ntask: arc_easy\ndataset_path: allenai/ai2_arc\n",
    "models/__init__.py": "",
    "models/huggingface.py": """
class HFLM:
    def __init__(self, pretrained, tokenizer, batch_size): self.inner = pretrained
    def loglikelihood(self, requests, disable_tqdm=False): return []
    loglikelihood_rolling = generate_until = loglikelihood
""",
}


def package(folder: Path) -> Path:
    """Write the package: its score is a mean log-probability that the model gives."""
    for name, text in PACKAGE.items():
        path = folder / "lm_eval" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def interpreter(folder: Path, scores: Any, has: dict[str, str | None] | None = None) -> Path:
    """A program that answers as harness.py does in an environment with vLLM.

    It keeps the request beside it. Its scores are `scores`, or it fails where they are None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    versions = {"lm-eval": "0.4.13", "vllm": "0.32.0"} if has is None else has
    told = {"versions": versions, "tasks": str(package(folder) / "lm_eval" / "tasks")}
    (folder / "versions.json").write_text(json.dumps(told))
    (folder / "scores.json").write_text(json.dumps(scores))
    program = folder / "python"
    score = 'cat "$3" > "$here/request.json"; cat "$here/scores.json" > "$4"'
    if scores is None:
        score = "echo 'ValueError: no memory for the cache'; exit 3"
    program.write_text(
        f'#!/bin/sh\nhere="{folder}"\ncase "$2" in\n'
        f'versions) cat "$here/versions.json" ;;\nscore) {score} ;;\nesac\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def own_task(folder: Path, name: str = "mine_easy", rows: int = 6) -> Path:
    """A folder with a task of its own, a helper and data that lie elsewhere."""
    folder.mkdir(parents=True)
    data = folder.parent / f"{name}.jsonl"
    choices = ["a cat", "a longer dog", "the sun"]
    lines = [{"query": f"Q{i}:", "choices": choices, "gold": i % 3} for i in range(rows)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "task.yaml").write_text(TASK.format(name=name, data=data))
    (folder / "helpers.py").write_text("def same(documents):\n    return documents\n")
    return folder
