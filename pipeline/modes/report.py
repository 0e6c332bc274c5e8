"""`mode=report report.run=DIR`: make report.html again from a run's result.json."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.report.files import read_result, rebuild
from pipeline.report.summary import print_summary


def report(config: Config, run_dir: Path) -> int:
    """Rebuild the page of the run folder `report.run` and print its summary; exit code 0."""
    del run_dir
    if config.report.run is None:
        raise UserError(
            "mode=report needs the folder of a run",
            remedy="say report.run=outputs/runs/DATE/TIME-ID; mode=ls lists them",
        )
    folder = Path(config.report.run)
    rebuild(folder)
    print_summary(read_result(folder), folder, Console(highlight=False))
    return 0
