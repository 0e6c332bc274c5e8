"""Stage `scores`: what one model scores in tasks of lm-evaluation-harness."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.key import Json, canonical
from pipeline.registry import nearest
from pipeline.stage import Estimate, Site, Stage, Survey
from stages.compute import gpu_estimates as gpu
from stages.compute.estimates import EVAL_PROCESS
from stages.eval.estimates import model_bytes
from stages.eval.tasks import outside
from stages.eval.tasks.config import ScoresConfig
from stages.eval.tasks.harness import tasks_folder
from stages.eval.tasks.task_files import OwnTasks, harness_names, own_tasks, unknown
from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_names import needs_class

EXTRA = "pip install 'presswork[lm-eval]'"
STARTUP = 20.0
"""Seconds in which the harness reads its own definitions; only for the plan."""


@dataclass(frozen=True, eq=False)
class Scores(Stage):
    """Makes `scores.json`; see `stages.eval.tasks.harness.scores`.

    With an input `checkpoint` (the result of save) the compressed model is asked, without it the
    original. transformers computes with the inputs fake-quantized as engines do, or vLLM does.
    """

    kind: ClassVar[str] = "scores"
    version: ClassVar[int] = 1
    in_driver: ClassVar[bool] = True  # its data sets come from the hub, which may ask for a token
    work: ClassVar[tuple[str, ...]] = ("stages.eval.tasks.run",)
    lighter: ClassVar[str] = "lower eval.batch_size, which changes the result a little"
    Config: ClassVar[type] = ScoresConfig
    content: Json = None
    """The content of the user's own tasks, once surveyed."""
    engine: Json = None
    """Versions of the libraries of vLLM's interpreter, once surveyed; None: this process."""

    @property
    def libraries(self) -> tuple[str, ...]:
        if self.config.vllm.python is not None:
            return ()
        return ("compressed-tensors", "lm-eval", "torch", "transformers")

    def survey(self, site: Site) -> Survey:
        config: ScoresConfig = self.config
        model = site.facts.get("model")
        if isinstance(model, Blueprint) and model.outlined:
            return Survey(problems=(needs_class(model),))
        try:
            engine, folder = self._engine()
            own = None if config.include_path is None else own_tasks(config.include_path)
            _check_names(config, own, folder)
        except UserError as error:
            return Survey(problems=(error,))
        content = None if own is None else own.content()
        return Survey(
            notes=(
                f"{site.name}: how long tasks take depends on their documents, which a plan does "
                "not read; eval.limit=100 asks the first 100 of each",
            ),
            estimates={None: _estimate(model, config)},
            settled=replace(self, content=content, engine=engine),
        )

    def _engine(self) -> tuple[Json, str]:
        """Versions of another interpreter's libraries, and the folder of the harness's tasks.

        Raises UserError where the harness or what it needs is not installed.
        """
        python = self.config.vllm.python
        if python is not None:
            there = outside.look(python)
            return there.versions, there.tasks
        folder = tasks_folder()
        needed = {"lm-eval": "lm_eval", "accelerate": "accelerate"}
        missing = [name for name, module in needed.items() if find_spec(module) is None]
        if missing or folder is None:
            raise UserError(
                f"eval=tasks: not installed here: {' and '.join(missing or ['lm-eval'])}",
                remedy=EXTRA,
            )
        return None, folder

    def semantics(self, member: str | None) -> Json:
        """The config, the content of own tasks, and the versions in vLLM's interpreter."""
        del member
        said = canonical(self.config)
        if self.config.vllm.python is None:
            said.pop("vllm")
        else:
            said.pop("numerics")
        return {**said, "own": self.content, "engine": self.engine}


def needs_defaults(config: ScoresConfig, own: OwnTasks | None) -> bool:
    """Whether the harness has to read its own definitions, some 10,000 files."""
    return own is None or own.groups or not own.names.issuperset(config.tasks)


def _check_names(config: ScoresConfig, own: OwnTasks | None, folder: str) -> None:
    """Raise UserError for names that neither the user's tasks nor the harness's have."""
    known = frozenset[str]() if own is None else own.names
    bad = unknown((name for name in config.tasks if name not in known), folder)
    if bad:
        where = "" if own is None else f" nor in eval.include_path={config.include_path}"
        near = nearest(bad[0], known | harness_names(folder))
        raise UserError(
            f"eval.tasks: {', '.join(bad)}: no such task in the harness{where}",
            remedy=" ".join(filter(None, (near, "`lm-eval ls tasks` lists its tasks"))),
        )


def _estimate(model: object, config: ScoresConfig) -> Estimate:
    if not isinstance(model, Blueprint) or config.vllm.python is not None:
        return Estimate(bytes=4096, memory=EVAL_PROCESS, seconds=STARTUP)
    size, device = model_bytes(model), config.numerics.device
    logits = 4 * model.vocab_size * config.batch_size * 512
    if device == "cpu":
        return Estimate(bytes=4096, memory=EVAL_PROCESS + size + logits, seconds=STARTUP)
    return Estimate(
        bytes=4096,
        memory=EVAL_PROCESS + gpu.CUDA_PROCESS,
        seconds=STARTUP,
        device_memory=size + logits,
    )
