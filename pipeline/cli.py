"""The command line: Hydra composes, this checks, and one mode does the work."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import secrets
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from packaging.version import Version

from pipeline.config.hydra_errors import explain
from pipeline.config.recipe_import import Imported, imported, unfit
from pipeline.config.root import Config, load_config
from pipeline.config.searchpath import including, own_configs, register
from pipeline.errors import ManyErrors, StageFailed, UserError
from pipeline.logs import logging_to
from pipeline.objective import objective
from pipeline.registry import Registry
from pipeline.report.files import read_result
from pipeline.sweeps.command import asked, composed, finish, folder_override, launched
from pipeline.sweeps.jobs import begin, enter
from pipeline.sweeps.plan import SweepPlan, planned, texts

log = logging.getLogger("pipeline")

RUN_ID = "PRESSWORK_RUN_ID"
"""Set for each command, so that two started in the same second have different run folders."""

INTERRUPTED = 130


def main() -> None:
    """Run one command and leave with its exit code: 0 done, 1 failed, 130 interrupted."""
    sys.exit(_main(sys.argv[1:]))


def _main(argv: Sequence[str]) -> int:
    command = _Command(given=_given(argv), sweeps=asked(argv))
    with _hydra_hands_errors_on() as full_traceback, warnings.catch_warnings():
        warnings.filterwarnings("error", r"provider=.*is not available", UserWarning)
        code = command.told(command.start, full_traceback)
        if command.plan is None:
            return code
        # also after an error of the launcher: the jobs that are done are worth a table
        return max(code, command.told(command.finish, full_traceback))


@dataclass(slots=True)
class _Command:
    """One command as it goes; `plan` is that of a sweep, once it is known."""

    given: _Given
    sweeps: bool
    recipe: Imported = field(default_factory=Imported)
    plan: SweepPlan | None = None

    def start(self) -> int:
        """Let Hydra compose and run. Raises what it and the checks before it raise."""
        register()
        self.recipe = imported(self.given.overrides, Registry.load)
        self.given = replace(self.given, overrides=(*self.recipe.overrides, *self.given.overrides))
        for note in self.recipe.notes:
            _tell(f"note: {note}")
        start = hydra.main(config_path=str(self.given.folder), config_name="config", **rules())(job)
        words = self.recipe.into(sys.argv)
        if not self.sweeps:
            with _arguments(words):
                start()
            return 0
        with self.given.initialized():
            cfg = composed(self.given.name, self.given.overrides)
        plan = self.plan = planned(cfg, _words(), Path.cwd())
        with _arguments([*words, folder_override(plan)]), launched(plan, _tell):
            start()
        return 0

    def finish(self) -> int:
        return finish(self.plan) if self.plan is not None else 0

    def told(self, work: Callable[[], int], full_traceback: bool) -> int:
        """The exit code of `work`, after what went wrong has been told."""
        try:
            return work()
        except KeyboardInterrupt:
            _tell(f"stopped; {_goes_on()}")
            return INTERRUPTED
        except UserError as error:
            _tell_errors(error)
        except UserWarning as error:
            _tell(f"error: hydra.searchpath: {error}")
        except (HydraException, OmegaConfBaseException) as error:
            if full_traceback:
                raise
            given = self.given
            _tell_errors(
                unfit(error, self.recipe) or explain(error, given.overrides, given.compose)
            )
        except OSError as error:
            _tell(f"error: {error}\n  choose another folder with hydra.run.dir=DIR")
        except Exception as error:  # the border: launchers raise what their cluster's library does
            if self.plan is None or full_traceback:
                raise
            _tell(f"error: the launcher stopped: {type(error).__name__}: {error}")
        return 1


def job(cfg: DictConfig) -> float | tuple[float, ...] | None:
    """What Hydra runs, once or for each job of a sweep.

    Of a job of a sweep, the numbers that `objective` names; None of one that failed, which is told
    here and recorded in the sweep's folder.
    """
    context = HydraConfig.get()
    # Not resolved: an override may itself be a reference.
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
    label = f"job {number}: "
    _tell(f"{label}{' '.join(overrides)}")
    record = begin(sweep, number, overrides, folder)
    values: list[float | tuple[float, ...]] = []

    def work() -> int:
        enter(cwd)
        code = _perform(cfg, folder, overrides, cwd)
        if not code and (paths := texts(cfg.get("objective"))):
            values.append(objective(read_result(folder), paths))
        return code

    try:
        error = _attempt(work, folder, label)
    except BaseException:
        record.ended(sweep, "interrupted")
        raise
    record.ended(sweep, "ok" if error is None else "failed", error)
    return values[0] if values and error is None else None


def _attempt(work: Callable[[], int], folder: Path, label: str = "") -> str | None:
    """Do it and tell what went wrong; what that was, or None if all is well."""
    told: str | None = None
    try:
        code = work()
        told = f"exit code {code}" if code else None
    except UserError as error:
        told = str(error)
        _tell_errors(error, label)
        if isinstance(error, StageFailed) and not label:
            _tell(_goes_on())
    except Exception as error:  # the border: whatever it is, a person must be told where it is
        told = f"{type(error).__name__}: {error}"
        _tell_crash(error, label, folder)
    _discard_if_empty(folder)
    return told


def _perform(cfg: DictConfig, folder: Path, overrides: Sequence[str], cwd: Path) -> int:
    """Check the config, then let its mode work; returns the exit code."""
    chosen = HydraConfig.get().runtime.choices.get("experiment")
    config = load_config(
        cfg,
        Registry.load(),
        overrides=overrides,
        cwd=cwd,
        experiment=None if chosen is None else str(chosen),
    )
    function = getattr(importlib.import_module(f"pipeline.modes.{config.mode}"), config.mode)
    if config.mode not in ("run", "sensitivity"):
        return int(function(config, folder))
    write_config(config, folder)
    with logging_to(folder / "run.log"):
        try:
            return int(function(config, folder))
        except UserError as error:
            log.error("%s", error)
            raise
        except Exception:
            log.exception("unexpected error")
            raise


def write_config(config: Config, folder: Path) -> Path:
    """Write `config.yaml`: the resolved config, from which the run can be started again."""
    path = folder / "config.yaml"
    command = shlex.join(
        ["python", "-m", "pipeline", "--config-dir", str(folder), "--config-name", "config"]
    )
    text = OmegaConf.to_yaml(OmegaConf.create(dict(config.resolved)))
    heading = (
        f"# A run's config, resolved. To run it again, also with other values:\n#   {command}\n"
    )
    try:
        path.write_text(f"{heading}defaults: [base, _self_]\n{text}", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}",
            remedy="choose another folder with hydra.run.dir=DIR",
        ) from error
    return path


@dataclass(frozen=True, slots=True)
class _Given:
    """What the command line says about where the primary config is."""

    folder: Path
    name: str
    overrides: tuple[str, ...]
    extra: Path | None = None
    """The folder of --config-dir, if it is not the primary config's."""

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The primary config with these overrides, for looking at its keys."""
        with self.initialized():
            return hydra.compose(self.name, overrides=list(overrides))

    @contextlib.contextmanager
    def initialized(self) -> Iterator[None]:
        """Hydra ready to compose as it will for the command itself."""
        with including(self.extra), hydra.initialize_config_dir(str(self.folder), **rules()):
            yield


def _given(argv: Sequence[str]) -> _Given:
    """Find the primary config's folder.

    It is presswork's own, unless --config-dir and --config-name together name a file: Hydra looks
    into its main folder first, where `config` would be ours.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for short, name in (("-cd", "config-dir"), ("-cn", "config-name"), ("-cp", "config-path")):
        parser.add_argument(short, f"--{name}")
    options, rest = parser.parse_known_args(argv)
    folder = own_configs()
    if options.config_path:
        folder = Path(options.config_path).resolve()
    elif options.config_dir and options.config_name:
        named = Path(options.config_dir).resolve()
        if (named / f"{options.config_name.removesuffix('.yaml')}.yaml").is_file():
            folder = named
    return _Given(
        folder=folder,
        name=options.config_name or "config",
        extra=Path(options.config_dir).resolve() if options.config_dir else None,
        overrides=tuple(word for word in rest if not word.startswith("-")),
    )


def rules() -> dict[str, Any]:
    """Arguments that make Hydra follow its present rules.

    1.4 warns about `version_base`; before it, leaving it out means the rules of 1.1.
    """
    return {} if Version(hydra.__version__) >= Version("1.4.0.dev0") else {"version_base": "1.3"}


@contextlib.contextmanager
def _hydra_hands_errors_on() -> Iterator[bool]:
    """Keep Hydra from printing errors and leaving; gives whether the user asked for tracebacks."""
    before = {name: os.environ.get(name) for name in ("HYDRA_FULL_ERROR", RUN_ID)}
    os.environ.update({"HYDRA_FULL_ERROR": "1", RUN_ID: secrets.token_hex(3)})
    try:
        yield before["HYDRA_FULL_ERROR"] == "1"
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _arguments(words: list[str]) -> Iterator[None]:
    """Let Hydra read these in place of the command line's own."""
    before, sys.argv = sys.argv, words
    try:
        yield
    finally:
        sys.argv = before


def _discard_if_empty(folder: Path) -> None:
    """Remove a run folder that nothing was written to; a mode that has none is given this one."""
    if folder == Path.cwd():
        return
    with contextlib.suppress(OSError):
        folder.rmdir()


def _words() -> str:
    """The command line, as it can be given again."""
    program = "presswork" if Path(sys.argv[0]).name == "presswork" else "python -m pipeline"
    return " ".join([program, *map(shlex.quote, sys.argv[1:])])


def _goes_on() -> str:
    return f"what was finished is kept, and this goes on from there:\n  {_words()}"


def _tell_errors(error: UserError, label: str = "") -> None:
    for each in error.errors if isinstance(error, ManyErrors) else (error,):
        _tell(f"{label}error: {each}")


def _tell_crash(error: Exception, label: str, folder: Path) -> None:
    """One line with what and where, the end of the traceback, and where all of it is."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    name = type(error).__name__
    _tell(f"{label}error: {name} in {frame.name} ({frame.filename}:{frame.lineno}): {error}")
    lines = "".join(traceback.format_exception(error)).splitlines()
    record = folder / "run.log"
    if record.is_file():
        _tell("\n".join(["  ...", *lines[-12:], f"The whole traceback is in {record}"]))
    else:
        _tell("\n".join(lines))


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
