"""`mode=diff checkpoint=[A,B]`: tell what differs between two checkpoints."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.root import Config
from pipeline.errors import UserError
from pipeline.report.examination import examined


def diff(config: Config, run_dir: Path) -> int:
    """Print what differs, leave diff.json and diff.html; exit code 1 beyond diff.tolerance."""
    if len(config.checkpoints) != 2:
        raise UserError(
            f"mode=diff is told {len(config.checkpoints) or 'no'} checkpoints",
            remedy="say 'checkpoint=[A,B]': two folders, of which either may be the original model",
        )
    return 1 if examined(config, run_dir)["differs"] else 0
