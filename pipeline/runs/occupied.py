"""One run a folder: a second one in the same hydra.run.dir is refused while the first is alive."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError
from pipeline.report.text_files import unwritable

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Context in which no other process, nor a thread of this one, runs in `folder`.

    The kernel locks the folder itself, and frees it when the process ends, however it ends. On file
    systems that lock no folders nothing is locked. Raises UserError if another run is there.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                raise UserError(
                    f"another run is at work in {folder}",
                    remedy="wait for it, or give this one a folder of its own: hydra.run.dir=DIR",
                ) from error
        yield
    finally:
        os.close(handle)
