"""`mode=inspect checkpoint=DIR`: tell what is in a checkpoint of any writer."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.root import Config
from pipeline.errors import UserError
from pipeline.report.examination import examined


def inspect(config: Config, run_dir: Path) -> int:
    """Print what the checkpoint holds, leave inspect.json and inspect.html; exit code 0."""
    if len(config.checkpoints) != 1:
        raise UserError(
            f"mode=inspect is told {len(config.checkpoints) or 'no'} checkpoints",
            remedy="say checkpoint=DIR: a folder, or a .gguf file; mode=diff compares two",
        )
    examined(config, run_dir)
    return 0
