"""Provenance of a checkpoint: provenance.json with sha256 checksums of all files, and their check.

The digests prove that a folder is as it was written: they find damage and edits. They do not say
who wrote it, for whoever changes a file can compute them anew; compare the digest of
provenance.json with one from a source that you trust.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.key import digest
from pipeline.sha256 import file_sha256
from stages.weights.checkpoint_files import inside
from stages.weights.untrusted_json import read_json

PROVENANCE = "provenance.json"
FILES, DIGEST = "files", "digest"
LONGEST = 64_000_000
SHA256 = re.compile(r"[0-9a-f]{64}")
READERS = 4
"""Threads that hash files at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """How a folder differs from its provenance.json.

    `faults` are files that are missing or differ; `added` are files that it does not list. `digest`
    is that of provenance.json; None: it lists no files, and nothing is known.
    """

    faults: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    digest: str | None = None


def render(content: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """The text of provenance.json: `content`, the sha256 of `files` by name, a digest of it all."""
    body = {**content, FILES: dict(sorted(files.items()))}
    return _text({**body, DIGEST: digest(body)})


def prove(folder: Path) -> Proof:
    """Compare every file of a checkpoint folder with provenance.json, byte for byte by sha256.

    A folder without it, or with one that lists no files, has no faults and no digest. Raises
    UserError if it cannot be read.
    """
    path = folder / PROVENANCE
    if not path.exists():
        return Proof()
    content = read_json(path, longest=LONGEST)
    if FILES not in content and DIGEST not in content:
        return Proof()
    listed, stated = content.get(FILES), content.pop(DIGEST, None)
    if not isinstance(listed, dict) or not _are_digests(listed.values()):
        return Proof(faults=(f"{PROVENANCE} lists files in a way that it is never written",))
    computed = _digest(content)
    if stated != computed or path.read_bytes() != _bytes({**content, DIGEST: stated}):
        return Proof(faults=(f"{PROVENANCE} is not as it was written",))
    paths = {name: inside(folder, name, said_by=PROVENANCE) for name in listed}
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda name: _fault(paths[name], listed[name]), listed)
        faults = [f"{name} {fault}" for name, fault in zip(listed, found, strict=True) if fault]
    added = sorted(set(_names(folder)) - listed.keys() - {PROVENANCE})
    return Proof(faults=tuple(faults), added=tuple(added), digest=computed)


def _digest(content: Mapping[str, Any]) -> str:
    """The digest of a parsed file; "" for what was never written, such as infinite numbers."""
    try:
        return digest(content)
    except (TypeError, ValueError):
        return ""


def _bytes(content: Mapping[str, Any]) -> bytes:
    return _text(content).encode("utf-8", "surrogatepass")


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _are_digests(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) and SHA256.fullmatch(value) for value in values)


def _fault(path: Path, expected: str) -> str:
    """How a file differs from what is listed; "" if it does not."""
    if not path.exists():
        return "is missing"
    if not path.is_file():
        return "is no plain file"
    try:
        found = file_sha256(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if found == expected else "has other bytes than were written (sha256 differs)"


def _names(folder: Path) -> Iterator[str]:
    """Relative names of all that is no folder."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix()


def checked_files(folder: Path) -> dict[str, Any]:
    """The check of `mode=verify` of all bytes: {"name", "ok", "detail"}; `ok` None: not proven."""
    name = "files"
    try:
        proof = prove(folder)
    except (UserError, OSError) as error:
        return {"name": name, "ok": False, "detail": str(error)}
    if proof.faults:
        return {"name": name, "ok": False, "detail": _some(proof.faults, "; ")}
    if proof.digest is None:
        detail = f"there is no {PROVENANCE} that lists checksums: a changed byte may go unnoticed"
        return {"name": name, "ok": None, "detail": detail}
    more = f"; not part of the checkpoint: {_some(proof.added, ', ')}" if proof.added else ""
    return {"name": name, "ok": True, "detail": f"digest {proof.digest}{more}"}


SHOWN = 4


def _some(items: tuple[str, ...], between: str) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return between.join(items[:SHOWN]) + more
