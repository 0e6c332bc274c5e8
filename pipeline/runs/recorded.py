"""A run folder at work: nobody else in it, the log written, the config kept beside the results."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import OmegaConf

from pipeline.config.root import Config
from pipeline.errors import UserError
from pipeline.logs import logging_to
from pipeline.report.text_files import write_text
from pipeline.runs.folders import check_writable
from pipeline.runs.occupied import alone_in

log = logging.getLogger("pipeline")


@contextmanager
def recorded(config: Config, folder: Path) -> Iterator[None]:
    """Context for what runs in `folder`: config.yaml and run.log tell of it, errors too.

    Raises UserError if the folder cannot be written or another run is in it.
    """
    check_writable(folder)
    with alone_in(folder), logging_to(folder / "run.log"):
        write_config(config, folder)
        try:
            yield
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
    write_text(path, f"{heading}defaults: [base, _self_]\n{text}")
    return path
