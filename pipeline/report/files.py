"""Report files of a run, result.json and report.html, written atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pipeline.errors import UserError
from pipeline.report.record import RunRecord
from pipeline.report.result import SCHEMA, assemble
from pipeline.report.text_files import write_text

RESULT = "result.json"
REPORT = "report.html"
CONFIG = "config.yaml"


def write_reports(run: RunRecord) -> dict[str, Any]:
    """Write result.json and report.html into the run folder; returns the result."""
    from pipeline.report.html import render  # with a library of templates

    result = assemble(run)
    write_text(run.run_dir / RESULT, json.dumps(result, indent=1, allow_nan=False) + "\n")
    write_text(run.run_dir / REPORT, render(result, run.config))
    return result


def rebuild(run_dir: Path) -> Path:
    """Write report.html of a run folder anew from its result.json and config.yaml.

    Returns its path. Raises UserError if the folder has no result of this schema.
    """
    from pipeline.report.html import render

    result = read_result(run_dir)
    write_text(run_dir / REPORT, render(result, read_config(run_dir)))
    return run_dir / REPORT


def read_result(run_dir: Path) -> dict[str, Any]:
    """result.json of a run folder. Raises UserError if it is missing, broken or newer."""
    path = run_dir / RESULT
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        schema = result["schema"]
    except FileNotFoundError:
        raise UserError(
            f"there is no {path}", remedy="give the folder of a run; mode=ls lists them"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a result: {error}", remedy="run the command again"
        ) from error
    if schema != SCHEMA:
        raise UserError(
            f"{path} has schema {schema}, this version reads {SCHEMA}",
            remedy="use the version of presswork that wrote it, or run the command again",
        )
    return dict(result)


def read_config(run_dir: Path) -> Mapping[str, Any]:
    """config.yaml of a run folder as plain data, empty if there is none.

    Raises UserError if it cannot be read.
    """
    path = run_dir / CONFIG
    try:
        plain = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} cannot be read: {error}", remedy="restore the file") from error
    # `defaults` only serves to compose the file again; it is not part of the config.
    keys = plain if isinstance(plain, dict) else {}
    return {str(name): value for name, value in keys.items() if name != "defaults"}
