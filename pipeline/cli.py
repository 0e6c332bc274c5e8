"""Command line: Hydra composes the config, load_config validates it, and its mode runs.

What only runs and sweeps need is imported by them: `--help` and completion are asked for at once.
"""

from __future__ import annotations

import contextlib
import importlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pipeline.config.called import COMPOSITION, composition_error, run_id, strict_search_path
from pipeline.config.checked_loader import checked
from pipeline.config.environment import references_shown
from pipeline.config.primary import (
    PrimaryConfig,
    arguments,
    asks_sweep,
    at_home,
    check_options,
    gathered,
    primary_config,
    rules,
)
from pipeline.config.recipe_import import Imported, imported
from pipeline.config.searchpath import own_configs, register
from pipeline.errors import StageFailed, UserError
from pipeline.machine.variables import variables
from pipeline.masking import masked, masked_streams
from pipeline.messages import message, print_crash, print_errors
from pipeline.registry import Registry

if TYPE_CHECKING:
    from pipeline.sweeps.plan import SweepPlan

INTERRUPTED = 130


def main() -> None:
    """Run one command and exit with its code: 0 done, 1 failed, 130 interrupted."""
    sys.exit(_main(sys.argv[1:]))


def _main(argv: Sequence[str]) -> int:
    words = tuple(map(at_home, argv))
    command = _Command(words=words, given=primary_config(words), sweeps=asks_sweep(words))
    with (
        _hydra_raises() as full_traceback,
        strict_search_path(),
        checked(),
        masked_streams(),
    ):
        code = command.reported(command.start, full_traceback)
        if command.plan is None:
            return code
        # also after an error of the launcher: the finished jobs deserve a table
        return max(code, command.reported(command.finish, full_traceback))


@dataclass(slots=True)
class _Command:
    """The state of one command; `plan` is that of a sweep, once it is known, and `interrupted`
    says that its jobs were."""

    words: tuple[str, ...]
    given: PrimaryConfig
    sweeps: bool
    recipe: Imported = field(default_factory=Imported)
    plan: SweepPlan | None = None
    interrupted: bool = False

    def start(self) -> int:
        """Let Hydra compose the config and run. Raises the errors of Hydra and of the checks."""
        register()
        options = arguments(self.words)
        check_options(options)
        self.recipe = imported(self.given.overrides, Registry.load)
        self.given = replace(self.given, overrides=(*self.recipe.overrides, *self.given.overrides))
        for note in self.recipe.notes:
            message(f"note: {note}")
        start = hydra.main(config_path=str(self.given.folder), config_name="config", **rules())(job)
        words = self.recipe.into([sys.argv[0], *gathered(self.words)])
        if not self.sweeps:
            # a config that is only printed has no need of the environment's values
            with _arguments(words), references_shown(bool(options.cfg or options.help)):
                start()
            return 0
        return self._sweep(start, words)

    def _sweep(self, start: Callable[[], object], words: list[str]) -> int:
        from pipeline.sweeps.command import composed, folder_override, launched
        from pipeline.sweeps.one_driver import together
        from pipeline.sweeps.plan import planned

        with self.given.initialized():
            cfg = composed(self.given.name, self.given.overrides)
        self.plan = plan = self._checked(planned(cfg, _command_line(), Path.cwd()), cfg)
        with (
            _arguments([*words, folder_override(plan)]),
            launched(plan, message),
            together(self.given, cfg, plan.jobs, Path.cwd()),
        ):
            start()
        return 0

    def _checked(self, plan: SweepPlan, cfg: DictConfig) -> SweepPlan:
        """The plan with what jobs can make for each other.

        Raises UserError if some jobs of the sweep cannot run, unless the config goes on then.
        """
        from pipeline.sweeps.check import CHECKED, check_jobs, told

        mode = cfg.get("mode")
        if mode not in CHECKED:
            return plan
        checked_jobs = check_jobs(self.given, plan.jobs, Path.cwd())
        plan, found = replace(plan, shared=checked_jobs.shared), checked_jobs.impossible
        if mode != "run" or not found:
            return plan
        error = told(found, len(plan.jobs))
        if len(found) == len(plan.jobs) or not OmegaConf.select(cfg, "sweep.skip_invalid"):
            raise error
        message(f"warning: {error.what}")
        return plan

    def finish(self) -> int:
        from pipeline.sweeps.command import finish

        code = finish(self.plan) if self.plan is not None else 0
        if self.interrupted:
            message(_resume_hint())
        return code

    def reported(self, work: Callable[[], int], full_traceback: bool) -> int:
        """The exit code of `work`, with its errors printed."""
        try:
            return work()
        except KeyboardInterrupt:
            if self.plan is not None and not self.interrupted:  # the table of jobs comes first
                self.interrupted = True
                message("stopped")
            else:
                message(f"stopped; {_resume_hint()}")
            return INTERRUPTED
        except UserError as error:
            print_errors(error)
        except COMPOSITION as error:
            if full_traceback and not isinstance(error, UserWarning):
                raise
            print_errors(composition_error(error, self.given, self.recipe))
        except OSError as error:
            place = error.filename or "the run folder"
            reason = error.strerror or error
            message(f"error: {place} cannot be created or written: {reason}")
            message("  choose another folder with hydra.run.dir=DIR")
        except Exception as error:  # launchers raise any error of their cluster's library
            if self.plan is None or full_traceback:
                raise
            message(f"error: the launcher stopped: {type(error).__name__}: {error}")
        return 1


def job(cfg: DictConfig) -> float | tuple[float, ...] | None:
    """The function that Hydra runs, once or for each job of a sweep.

    Returns the numbers that `objective` names for a job of a sweep; None if it failed, which is
    printed and recorded in the sweep's folder.
    """
    context = HydraConfig.get()
    # not resolved: an override may itself be a reference
    overrides = cast(list[str], OmegaConf.to_container(context.overrides.task, resolve=False))
    folder, cwd = Path(context.runtime.output_dir), Path(context.runtime.cwd)
    if context.mode == RunMode.MULTIRUN:
        sweep = Path(context.sweep.dir)
        return _job_of_sweep(cfg, sweep, int(context.job.num), folder, overrides, cwd)
    error = _attempt(lambda: _perform(cfg, folder, overrides, cwd), folder)
    if error is not None:
        raise SystemExit(1)
    return None


def _job_of_sweep(
    cfg: DictConfig, sweep: Path, number: int, folder: Path, overrides: Sequence[str], cwd: Path
) -> float | tuple[float, ...] | None:
    if not sweep.is_absolute():
        raise UserError("a config says hydra.mode=MULTIRUN", remedy="start a sweep with -m")
    from pipeline.objective import objective
    from pipeline.report.files import read_result
    from pipeline.sweeps.jobs import begin, enter
    from pipeline.sweeps.plan import read_plan, texts

    label = f"job {number}: "
    message(f"{label}{' '.join(overrides)}")
    record = begin(sweep, number, overrides, folder)
    values: list[float | tuple[float, ...]] = []

    def work() -> int:
        enter(cwd)
        plan = read_plan(sweep)
        code = _perform(cfg, folder, overrides, cwd, frozenset(plan.shared if plan else ()))
        if not code and (paths := texts(cfg.get("objective"))):
            values.append(objective(read_result(folder), paths))
        return code

    try:
        with masked_streams():  # here in the process of a launcher
            error = _attempt(work, folder, label)
    except BaseException:
        record.ended(sweep, "interrupted")
        raise
    record.ended(sweep, "ok" if error is None else "failed", error)
    return values[0] if values and error is None else None


def _attempt(work: Callable[[], int], folder: Path, label: str = "") -> str | None:
    """Run `work` and print its errors; returns the reason of a failure, None on success."""
    reason: str | None = None
    try:
        code = work()
        reason = f"exit code {code}" if code else None
    except UserError as error:
        reason = str(error)
        print_errors(error, label)
        if isinstance(error, StageFailed) and not label:
            message(_resume_hint())
    except Exception as error:  # whatever it is, the user must learn where it is
        reason = masked(f"{type(error).__name__}: {error}")
        print_crash(error, label, folder)
    _discard_if_empty(folder)
    return reason


def _perform(
    cfg: DictConfig,
    folder: Path,
    overrides: Sequence[str],
    cwd: Path,
    others: frozenset[str] = frozenset(),
) -> int:
    """Validate the config, then run its mode; returns the exit code.

    `others` are keys of results that other jobs of the sweep want.
    """
    from pipeline.config.root import load_config

    chosen = HydraConfig.get().runtime.choices.get("experiment")
    config = load_config(
        cfg,
        Registry.load(),
        overrides=overrides,
        cwd=cwd,
        experiment=None if chosen is None else str(chosen),
    )
    config = replace(config, others=others, command=_job_command(overrides))
    function = getattr(importlib.import_module(f"pipeline.modes.{config.mode}"), config.mode)
    if config.mode not in ("run", "sensitivity"):
        return int(function(config, folder))
    from pipeline.runs.recorded import recorded

    with recorded(config, folder):
        return int(function(config, folder))


@contextlib.contextmanager
def _hydra_raises() -> Iterator[bool]:
    """Make Hydra raise errors instead of exiting; yields whether the user wants tracebacks."""
    with variables({"HYDRA_FULL_ERROR": "1", **run_id()}) as before:
        yield before["HYDRA_FULL_ERROR"] == "1"


@contextlib.contextmanager
def _arguments(words: list[str]) -> Iterator[None]:
    """Replace the arguments of the command line that Hydra reads."""
    before, sys.argv = sys.argv, words
    try:
        yield
    finally:
        sys.argv = before


def _discard_if_empty(folder: Path) -> None:
    """Remove a run folder without files. Modes without one of their own get the current folder."""
    if folder == Path.cwd():
        return
    with contextlib.suppress(OSError):
        folder.rmdir()


def _command_line() -> str:
    """The command line, quoted for the shell."""
    return shlex.join([*_program(), *sys.argv[1:]])


def _job_command(overrides: Sequence[str]) -> str:
    """The command line for one job alone, quoted for the shell."""
    context = HydraConfig.get()
    words: list[str] = []
    for source in context.runtime.config_sources:
        own = source.provider == "main" and Path(source.path) == own_configs()
        if source.provider in ("main", "command-line") and not own:
            words += ["--config-dir", source.path]
    if words or context.job.config_name != "config":
        words += ["--config-name", str(context.job.config_name)]
    return shlex.join([*_program(), *words, *overrides])


def _program() -> list[str]:
    named = Path(sys.argv[0]).name == "presswork"
    return ["presswork"] if named else ["python", "-m", "pipeline"]


def _resume_hint() -> str:
    return f"what was finished is kept, and this goes on from there:\n  {_command_line()}"
