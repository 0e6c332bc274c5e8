"""`mode=report report.run=DIR` or `report.sweep=DIR`: rebuild the page of a run or a sweep."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from pipeline.config.root import Config
from pipeline.errors import UserError
from pipeline.report.files import read_config, read_result, rebuild
from pipeline.report.summary import print_summary
from pipeline.sweeps.page import write_sweep
from pipeline.sweeps.summary import print_summary as print_sweep
from pipeline.trackers.tracked import tracked


def report(config: Config, run_dir: Path) -> int:
    """Rebuild the page of the folder that the config names and print its summary; exit code 0.

    With `tracker`, the run `report.run` is sent to it as well. `report.sweep` may also be a folder
    of runs that do not belong to a sweep.
    """
    del run_dir
    console = Console(highlight=False)
    if config.report.run is None and config.report.sweep is None:
        raise UserError(
            "mode=report needs the folder of a run or of a sweep",
            remedy="say report.run=outputs/runs/DATE/TIME-ID or "
            "report.sweep=outputs/sweeps/DATE/TIME-ID; mode=ls lists them",
        )
    if config.report.run is not None:
        folder = Path(config.report.run)
        rebuild(folder)
        result = read_result(folder)
        print_summary(result, folder, console)
        if config.tracker is not None:
            config.tracker.log(tracked(result, read_config(folder), folder))
    if config.report.sweep is not None:
        folder = Path(config.report.sweep).absolute()
        print_sweep(write_sweep(folder), folder, console)
    return 0
