"""Run the harness by another interpreter, whose environment has vLLM and libraries of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from pipeline.errors import StageFailed, UserError
from pipeline.masking import masked
from stages.eval.tasks import harness

SCRIPT = Path(harness.__file__)
LOOKING = 60.0
"""Seconds in which an interpreter must say what it has."""
OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables by which the other interpreter would take packages of this one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """An interpreter's libraries: name -> version, and the folder of its harness's tasks."""

    versions: Mapping[str, str | None]
    tasks: str


@lru_cache(maxsize=8)
def look(python: str) -> Environment:
    """What an interpreter has. Raises UserError if it does not run, or lacks lm-eval or vllm."""
    where = f"eval.vllm.python={python}"
    program = shutil.which(Path(python).expanduser())
    if program is None:
        raise UserError(
            f"{where} is no program", remedy="give the path of the interpreter that has vLLM"
        )
    try:
        done = subprocess.run(  # noqa: S603 - no shell; only the user may name the interpreter
            [program, str(SCRIPT), "versions"],
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=LOOKING,
            check=True,
        )
        told = json.loads(done.stdout.splitlines()[-1])
        versions, tasks = dict(told["versions"]), told["tasks"]
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{where} cannot say which libraries it has: {_reason(error)}",
            remedy="give a Python interpreter, such as FOLDER/bin/python",
        ) from error
    missing = [name for name in ("lm-eval", "vllm") if versions.get(name) is None]
    if missing or tasks is None:
        raise UserError(
            f"{where} has no {' and no '.join(missing or ['lm-eval'])}",
            remedy=f"{python} -m pip install {' '.join(missing or ['lm-eval'])}",
        )
    return Environment(versions=versions, tasks=str(tasks))


def score(python: str, request: Mapping[str, Any], scratch: Path) -> dict[str, Any]:
    """Scores by another interpreter; raises StageFailed with the end of what it printed."""
    scratch.mkdir(parents=True, exist_ok=True)
    asked, answer, log = (scratch / n for n in ("request.json", "answer.json", "harness.log"))
    asked.write_text(json.dumps(request), encoding="utf-8")
    program = str(Path(python).expanduser())
    with log.open("wb") as output:
        code = _ended([program, str(SCRIPT), "score", str(asked), str(answer)], output)
    if code or not answer.is_file():
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise StageFailed(
            f"the harness left with {code} in {program}:\n{masked(os.linesep.join(lines[-12:]))}",
            remedy="arguments of the engine are given by +eval.vllm.options.max_model_len=2048",
        )
    found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def _ended(command: list[str], output: IO[bytes]) -> int:
    """The exit code of a command; it and its children are ended where this process is stopped."""
    process = subprocess.Popen(  # noqa: S603 - no shell; only the user may name the interpreter
        command,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in OURS}


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = str(error.stderr).strip().splitlines()
        return masked(lines[-1]) if lines else f"it left with {error.returncode}"
    return masked(str(error).splitlines()[0] if str(error) else type(error).__name__)
