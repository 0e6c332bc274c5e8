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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from packaging.version import Version

from pipeline.complaints import explain
from pipeline.config import Config, load_config
from pipeline.errors import ManyErrors, StageFailed, UserError
from pipeline.recipe import Imported, imported, unfit
from pipeline.registry import Registry
from pipeline.searchpath import own_configs, register

log = logging.getLogger("pipeline")

RUN_ID = "PRESSWORK_RUN_ID"
"""Set for each command, so that two started in the same second have different run folders."""

INTERRUPTED = 130


class JobFailed(Exception):
    """A job of a sweep failed, and has been told."""


def main() -> None:
    """Run one command and leave with its exit code: 0 done, 1 failed, 130 interrupted."""
    sys.exit(_main(sys.argv[1:]))


def _main(argv: Sequence[str]) -> int:
    given, recipe = _given(argv), Imported()
    with _hydra_hands_errors_on() as full_traceback, warnings.catch_warnings():
        warnings.filterwarnings("error", r"provider=.*is not available", UserWarning)
        try:
            register()
            recipe = imported(given.overrides, Registry.load)
            given = replace(given, overrides=(*recipe.overrides, *given.overrides))
            for note in recipe.notes:
                _tell(f"note: {note}")
            start = hydra.main(config_path=str(given.folder), config_name="config", **rules())(job)
            with _arguments(recipe.into(sys.argv)):
                start()
        except KeyboardInterrupt:
            _tell(f"stopped; {_goes_on()}")
            return INTERRUPTED
        except JobFailed:
            return 1
        except UserError as error:
            _tell_errors(error)
            return 1
        except UserWarning as error:
            _tell(f"error: hydra.searchpath: {error}")
            return 1
        except (HydraException, OmegaConfBaseException) as error:
            if full_traceback:
                raise
            _tell_errors(unfit(error, recipe) or explain(error, given.overrides, given.compose))
            return 1
        except OSError as error:
            _tell(f"error: {error}\n  choose another folder with hydra.run.dir=DIR")
            return 1
    return 0


def job(cfg: DictConfig) -> None:
    """What Hydra runs, once or for each job of a sweep."""
    context = HydraConfig.get()
    sweep = context.mode == RunMode.MULTIRUN
    # Not resolved: an override may itself be a reference.
    overrides = cast(list[str], OmegaConf.to_container(context.overrides.task, resolve=False))
    folder = Path(context.runtime.output_dir)
    label = f"job {context.job.num}: " if sweep else ""
    if sweep:
        _tell(f"{label}{' '.join(overrides)}")
    try:
        code = _perform(cfg, folder, overrides, Path(context.runtime.cwd))
    except UserError as error:
        _tell_errors(error, label)
        if isinstance(error, StageFailed) and not sweep:
            _tell(_goes_on())
        code = 1
    except Exception as error:  # the border: whatever it is, a person must be told where it is
        _tell_crash(error, label, folder)
        code = 1
    _discard_if_empty(folder)
    if code and sweep:
        raise JobFailed(f"{label}exit code {code}")
    if code:
        raise SystemExit(code)


def _perform(cfg: DictConfig, folder: Path, overrides: Sequence[str], cwd: Path) -> int:
    """Check the config, then let its mode work; returns the exit code."""
    config = load_config(cfg, Registry.load(), overrides=overrides, cwd=cwd)
    function = getattr(importlib.import_module(f"pipeline.modes.{config.mode}"), config.mode)
    if config.mode != "run":
        return int(function(config, folder))
    write_config(config, folder)
    with _logging_to(folder / "run.log"):
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

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The primary config with these overrides, for looking at its keys."""
        with hydra.initialize_config_dir(str(self.folder), **rules()):
            return hydra.compose(self.name, overrides=list(overrides))


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


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Send all logging of this process to a file, one line a record."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()


def _discard_if_empty(folder: Path) -> None:
    """Remove a run folder that nothing was written to."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _goes_on() -> str:
    program = "presswork" if Path(sys.argv[0]).name == "presswork" else "python -m pipeline"
    command = " ".join([program, *map(shlex.quote, sys.argv[1:])])
    return f"what was finished is kept, and this goes on from there:\n  {command}"


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
