"""Disk errors as one readable message: full, over quota, read-only, permission denied."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError, causes
from pipeline.store.disk import human

STORE = "the store"
FULL = (errno.ENOSPC, errno.EDQUOT)
DENIED = (errno.EACCES, errno.EPERM)
MISSING = re.compile(r"No such file or directory: (.+)")
RUST_CODE = re.compile(r"\(os error (\d+)\)")


class StorageTrouble(UserError):
    """A disk is full, over quota, read-only or not writable by this user."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A folder that is written to, what to call it in messages, and how to choose another."""

    root: Path
    what: str = STORE
    remedy: str = "set store.dir to a folder that you may write"


@contextmanager
def explained(place: Place) -> Iterator[None]:
    """Turn exceptions of the block that the disk of `place` causes into StorageTrouble."""
    try:
        yield
    except StorageTrouble:
        raise
    except Exception as error:
        trouble = storage_error(error, place)
        if trouble is None:
            raise
        raise trouble from error


def storage_error(error: BaseException, place: Place) -> StorageTrouble | None:
    """The message for a full, read-only or unwritable disk that caused `error`, or None.

    Follows the chain of causes, and parses the text of errors from Rust libraries such as
    safetensors, which have the code only there. Of a file outside `place`, its folder is named.
    """
    for link in causes(error):
        code = code_of(link)
        blamed = place_of(link, place)
        if code in FULL:
            return full(blamed)
        if code == errno.EROFS:
            return StorageTrouble(
                f"{blamed.what} {blamed.root} lies on a read-only file system", remedy=blamed.remedy
            )
        if code in DENIED and blamed is place:
            return StorageTrouble(
                f"{blamed.what} {blamed.root} cannot be written: {link}", remedy=blamed.remedy
            )
    return None


def gone(error: BaseException, root: Path) -> StorageTrouble | None:
    """The message for a file of a store that vanished during a run, or None for other errors."""
    for link in causes(error):
        if code_of(link) not in (errno.ENOENT, errno.ESTALE):
            continue
        name = name_of(link)
        inside = name is not None and Path(name).absolute().is_relative_to(root)
        if not root.is_dir() or (inside and not Path(str(name)).exists()):
            return StorageTrouble(
                f"{name if inside else root} is gone: it was removed from the store while the run "
                "was at work",
                remedy="run the same command again; mode=gc frees space and keeps what runs need",
            )
    return None


def full(place: Place) -> StorageTrouble:
    try:
        free = f"{human(shutil.disk_usage(place.root).free)} free"
    except OSError:
        free = "free space unknown"
    elsewhere = "set store.dir to another disk" if place.what == STORE else place.remedy
    return StorageTrouble(
        f"no space left on the disk of {place.what} {place.root} ({free}, or over quota)",
        remedy=f"free some (python -m pipeline mode=gc) or {elsewhere}; "
        "what was finished is kept, the same command goes on from there",
    )


def place_of(error: BaseException, place: Place) -> Place:
    # An error of writing to an open file has no name: within the store, it is the store's.
    # Of a copy, the second name is the one that is written.
    second = getattr(error, "filename2", None)
    name = second if isinstance(second, str) else name_of(error)
    if name is None:
        return place
    path = Path(name).absolute()
    if path.is_relative_to(place.root):
        return place
    remedy = "choose a folder that you may write"
    return Place(root=path.parent, what="the folder", remedy=remedy)


def name_of(error: BaseException) -> str | None:
    """The file of an error; safetensors names the one that is missing in the text alone."""
    name = getattr(error, "filename", None)
    if isinstance(name, str):
        return name
    match = MISSING.fullmatch(str(error)) if isinstance(error, FileNotFoundError) else None
    return match[1] if match else None


def code_of(error: BaseException) -> int | None:
    if isinstance(error, FileNotFoundError):  # also without a number, as safetensors raises it
        return errno.ENOENT
    if isinstance(error, OSError):
        return error.errno
    match = RUST_CODE.search(str(error))
    return int(match[1]) if match else None
