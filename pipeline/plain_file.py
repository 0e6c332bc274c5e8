"""Open files that others name: plain ones only, for a pipe or a device may never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import UserError


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading bytes. Raises OSError, also for a pipe, a device or a folder.

    It never waits: opening a pipe would, until somebody writes to it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return os.fdopen(descriptor, "rb")


def is_plain(path: Path) -> bool:
    """Whether there is a plain file, links followed; False for a folder, and where nothing is.

    Raises UserError for a pipe, a device, and a link that leads nowhere: what somebody has put
    there is not the same as nothing.
    """
    if path.is_file():
        return True
    if path.is_dir() or not (path.is_symlink() or path.exists()):
        return False
    raise UserError(
        f"{path} is no plain file, or a link that leads nowhere",
        remedy="put the file itself there, or remove that",
    )
