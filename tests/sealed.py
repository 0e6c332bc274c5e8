"""Folders that cannot be written, also by root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WRITE = 0o222


@contextmanager
def sealed(folder: Path) -> Iterator[Path]:
    """Context in which nothing can be written below a folder: by its permissions, or a mount.

    Root may write whatever the permissions say, so for root it is mounted read-only.
    """
    if os.geteuid() != 0:
        yield from _without_permission(folder)
        return
    bound = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False)
    if bound.returncode:
        pytest.skip("mounting takes a kernel that allows it")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def _without_permission(folder: Path) -> Iterator[Path]:
    places = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    modes = {path: path.stat().st_mode for path in places}
    for path, mode in modes.items():
        path.chmod(mode & ~WRITE)
    try:
        yield folder
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
