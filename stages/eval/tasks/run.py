"""Run `scores`: ask one model the tasks, in this process by transformers, or by vLLM."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError

from pipeline.errors import StageFailed
from pipeline.stage import Artifact, Task
from stages.eval.evaluated_model import candidate
from stages.eval.generate_run import stopping
from stages.eval.tasks import harness, outside
from stages.eval.tasks.config import ScoresConfig
from stages.eval.tasks.stage import needs_defaults
from stages.eval.tasks.task_files import own_tasks
from stages.eval.whole_model import running
from stages.model.artifact_names import CHECKPOINT, MODEL
from stages.model.blueprint import Blueprint
from stages.model.compute_dtype import computed
from stages.model.skeleton import Skeleton, skeleton
from stages.model.tokenizer.load import load_tokenizer
from stages.weights.source_manifest import SourceManifest

_ALONE = threading.Lock()
"""The harness seeds the generators of the whole process: it asks one model at a time."""
INDEX = "model.safetensors.index.json"


def run(config: ScoresConfig, task: Task) -> None:
    """Write scores.json: every metric of every task, with the values of the documents."""
    own = None if config.include_path is None else own_tasks(config.include_path)
    if own is not None:
        task.reads((*own.files, *own.data))
    request: dict[str, Any] = {
        "tasks": config.tasks,
        "include_path": None if own is None else str(own.folder.absolute()),
        "defaults": needs_defaults(config, own),
        "num_fewshot": config.num_fewshot,
        "limit": config.limit,
        "batch_size": config.batch_size,
        "chat_template": config.chat_template,
        "seed": config.seed,
    }
    task.progress(0.0, ", ".join(config.tasks))
    if config.vllm.python is None:
        found = _in_process(config, request, task)
    else:
        folder = _folder(task)
        request["model_args"] = {"pretrained": str(folder.absolute()), **config.vllm.options}
        found = outside.score(config.vllm.python, request, task.scratch / "harness")
    if not found:
        raise StageFailed(
            f"the harness gave no score for {', '.join(config.tasks)}",
            remedy="look at the metrics that the tasks define",
        )
    task.outputs["out"].write_json("scores.json", found)


class _Model:
    """The model as the harness calls it, without the parts by which it would change it."""

    def __init__(self, bones: Skeleton, options: Mapping[str, Any]) -> None:
        self._model: Any = bones.model
        self._options = options
        self.device = bones.device
        self.dtype = bones.dtype
        self.config = self._model.config
        self.name_or_path = bones.blueprint.architecture

    def __call__(self, ids: torch.Tensor) -> Any:
        return self._model(ids, use_cache=False)

    def generate(self, **given: Any) -> Any:
        return self._model.generate(**{**self._options, **given})

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return iter(self._model.parameters())


def _in_process(config: ScoresConfig, request: Mapping[str, Any], task: Task) -> dict[str, Any]:
    from datasets.exceptions import DatasetsError
    from lm_eval.models.huggingface import HFLM

    config.numerics.apply()
    source, device = task.inputs["source"], config.numerics.device
    blueprint = Blueprint.load(task.inputs["model"])
    bones = skeleton(computed(blueprint, device), device=device)
    options = stopping(source.path / MODEL, blueprint.config)
    tokenizer = load_tokenizer(source.path / MODEL)
    with (
        _ALONE,
        running(bones, candidate(task.inputs, blueprint)),
        _random_state(),
        torch.no_grad(),
    ):
        asked = _quiet(HFLM, task.progress)(
            pretrained=_Model(bones, options), tokenizer=tokenizer, batch_size=config.batch_size
        )
        try:
            return harness.scores(asked, request)
        except (DatasetsError, TemplateError, LookupError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:400]
            raise StageFailed(
                f"the harness cannot ask {', '.join(config.tasks)}: "
                f"{type(error).__name__}: {reason}",
                remedy="its own tasks take their data from the hub; tasks of your own with local "
                "data are given by eval.include_path=FOLDER",
            ) from error


def _quiet(base: Any, progress: Callable[[float, str], None]) -> Any:
    """A class of models of the harness without progress bars: the node's progress says it.

    It is made here, as a class statement cannot name a base without types.
    """

    def method(name: str) -> Any:
        ask = getattr(base, name)

        def quiet(self: Any, requests: Any, disable_tqdm: bool = True) -> Any:
            del disable_tqdm
            progress(0.1, f"{len(requests)} requests, {name.replace('_', ' ')}")
            return ask(self, requests, disable_tqdm=True)

        return quiet

    names = ("loglikelihood", "loglikelihood_rolling", "generate_until")
    return type(f"Quiet{base.__name__}", (base,), {name: method(name) for name in names})


@contextmanager
def _random_state() -> Iterator[None]:
    """Context after which random numbers go on as before: the harness seeds all generators."""
    plain, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(plain)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)


def _folder(task: Task) -> Path:
    """A folder with the model as engines load it: the checkpoint, or links to the original."""
    if "checkpoint" in task.inputs:
        return task.inputs["checkpoint"].path / CHECKPOINT
    return original_folder(task.inputs["source"], task.scratch / "original")


def original_folder(source: Artifact, folder: Path) -> Path:
    """A folder with links to a source's small files and weights, and their index.

    Raises StageFailed for weights that are no safetensors.
    """
    manifest = SourceManifest.load(source)
    if manifest.kind != "safetensors" or "selection" in manifest.settings:
        raise StageFailed(
            f"vLLM is given safetensors here, and the original is {manifest.kind}",
            remedy="leave out eval.vllm.python: transformers computes then",
        )
    folder.mkdir(parents=True)
    for path in sorted((source.path / MODEL).rglob("*")):
        place = folder / path.relative_to(source.path / MODEL)
        if path.is_dir():
            place.mkdir()
        else:
            place.symlink_to(path.absolute())
    for file in manifest.files:
        (folder / file.name).symlink_to(file.locate(source.path).path.absolute())
    if manifest.tensors is not None and not (folder / INDEX).exists():
        index = {"metadata": {}, "weight_map": dict(manifest.tensors)}
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return folder
