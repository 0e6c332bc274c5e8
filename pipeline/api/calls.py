"""`compress` and `plan`: a job of the command line as a call, with objects where it has files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from pipeline.api.objects import overrides_for
from pipeline.api.outlook import Outlook, outlook
from pipeline.api.progress import Callback, Reporting
from pipeline.api.result import Result, load_result
from pipeline.config.called import called
from pipeline.config.override_words import choices_first, words_of
from pipeline.errors import UserError
from pipeline.machine.threads import kept_threads
from pipeline.modes.plan import planned_for
from pipeline.modes.run import performed
from pipeline.registry import Registry
from pipeline.runs.recorded import recorded

INPUTS = "inputs"
"""The folder, in that of the run, of what was given as objects, if it is to be kept. Else it has a
name that nobody else gave, and goes when the run has ended."""


def compress(
    model: Any = None,
    dataset: Any = None,
    *,
    scheme: str | None = None,
    modifier: str | Sequence[str] | None = None,
    processor: Any = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    output_dir: str | Path | None = None,
    store: str | Path | None = None,
    config_dir: str | Path | None = None,
    progress: Callback | None = None,
    keep_inputs: bool = False,
) -> Result:
    """Run a job as `python -m pipeline` does, with the same keys; what is stored is reused.

    An argument that is None is as the default config has it.

    Args:
        model: A folder, a `.gguf` file, `org/name` of the hub, an option of the config group
            `model`, or a model object, which is saved beside the run first.
        dataset: A file, an option of the group `dataset`, a `datasets.Dataset`, a list of texts, or
            a list of lists of integer ids.
        scheme: An option of its group, such as `"w4a16"`.
        modifier: Options of its group, in order.
        processor: What turns text into ids, for a model object: as `AutoProcessor` makes it.
        overrides: Words of the command line, or keys with values.
        output_dir: The run folder, new or that of the same job before.
        store: The folder of results.
        config_dir: A folder of configs of one's own.
        progress: Is called with a `Progress` at every step; None shows nothing.
        keep_inputs: Keep what was saved of objects, so that the run's config.yaml can be run again
            without them.

    Raises UserError, ManyErrors or StageFailed with what the command line would print; results
    that were built are kept, and the same call goes on from them.
    """
    given = _words(scheme=scheme, modifier=modifier, store=store, overrides=overrides)
    folder = None if output_dir is None else Path(output_dir).expanduser().absolute()
    names = {"model": model, "dataset": dataset, "processor": processor}
    with kept_threads(), _saved(names, folder, keep=keep_inputs) as saved:
        job = called((*saved, *given), config_dir=_path(config_dir))
        if job.config.mode != "run":
            raise UserError(f"mode is {job.config.mode!r}", remedy="leave it out: compress runs")
        run_dir = folder or job.run_dir
        run_dir.mkdir(parents=True, exist_ok=True)
        reporting = Reporting(progress)
        for note in job.notes:
            reporting.message(f"note: {note}")
        with recorded(job.config, run_dir):
            performed(job.config, run_dir, reporting)
    return load_result(run_dir)


def plan(
    model: Any = None,
    dataset: Any = None,
    *,
    scheme: str | None = None,
    modifier: str | Sequence[str] | None = None,
    processor: Any = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    store: str | Path | None = None,
    config_dir: str | Path | None = None,
) -> Outlook:
    """What `compress` would do with these arguments, as `mode=plan` tells it.

    Raises UserError or ManyErrors for a job that cannot run.
    """
    given = _words(scheme=scheme, modifier=modifier, store=store, overrides=overrides)
    names = {"model": model, "dataset": dataset, "processor": processor}
    with _saved(names, None, keep=False) as saved:
        job = called((*saved, *given, "mode=plan"), config_dir=_path(config_dir))
        return outlook(planned_for(job.config))


def _words(
    *,
    scheme: str | None,
    modifier: str | Sequence[str] | None,
    store: str | Path | None,
    overrides: Sequence[str] | Mapping[str, Any],
) -> tuple[str, ...]:
    words: list[str] = []
    if scheme is not None:
        words.append(f"scheme={scheme}")
    if modifier is not None:
        names = [modifier] if isinstance(modifier, str) else modifier
        words.append(f"modifier=[{','.join(names)}]")
    if store is not None:
        words += words_of({"store.dir": Path(store).expanduser().absolute()})
    return (*words, *words_of(overrides))


@contextmanager
def _saved(
    arguments: Mapping[str, Any], folder: Path | None, *, keep: bool
) -> Iterator[tuple[str, ...]]:
    """The overrides for arguments; what is saved of objects is there within the context.

    It lies in the run folder if that is given, else beside runs: on a disk with room for weights.
    """
    if keep and folder is None:
        raise UserError("keep_inputs without output_dir", remedy="say where: output_dir=DIR")
    base = Path.cwd() / "outputs" if folder is None else folder
    place = base / (INPUTS if keep else f".{INPUTS}-{uuid4().hex}")
    try:
        found = overrides_for(arguments, place, Registry.load())
        yield tuple(choices_first(words_of(found)))
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


def _path(folder: str | Path | None) -> Path | None:
    return None if folder is None else Path(folder).expanduser().absolute()
