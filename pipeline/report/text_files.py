"""Text files of run and sweep folders: written atomically, without secrets, with clear disk errors.

Neither a reader nor a killed process sees half a file; jobs on other machines read these while they
are written.
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from pipeline.errors import UserError
from pipeline.masking import masked
from pipeline.store.disk_errors import FULL

ELSEWHERE = "choose another folder with hydra.run.dir=DIR (a sweep's: hydra.sweep.dir=DIR)"


def write_text(path: Path, text: str) -> None:
    """Write a file of a run folder. Raises UserError if the disk refuses it."""
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(masked(text), encoding="utf-8")
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> UserError:
    """The error for a file of a run folder that cannot be written."""
    if error.errno in FULL:
        remedy = f"free some space, or {ELSEWHERE}; what was finished is kept in the store"
        return UserError(f"{path} cannot be written: its disk is full", remedy=remedy)
    reason = error.strerror or str(error)
    if error.errno == errno.ENOENT:
        reason = "its folder is gone"
    return UserError(f"{path} cannot be written: {reason}", remedy=ELSEWHERE)
