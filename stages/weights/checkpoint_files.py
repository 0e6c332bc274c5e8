"""Find the safetensors files of a model folder, single or sharded, and check them before use.

Checkpoints come from strangers: every name in an index is checked before a file is opened, and
symbolic links that lead out of the folder are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from pipeline.errors import ManyErrors, UserError
from pipeline.outside import PinnedFile
from pipeline.plain_file import is_plain
from stages.weights.safetensors_file import Header, read_header
from stages.weights.untrusted_json import read_json

STEMS = ("model", "consolidated")
LONGEST_INDEX = 50_000_000
LISTED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The weight files of a checkpoint by file name; `tensors` maps each tensor to its file.

    `tensors` is None for a checkpoint in one file, which has all that its header lists. `where`
    names the checkpoint in messages. `pinned` has files of which it is known in what state they
    have the right content; of others, each reader keeps to the state that it finds first.
    """

    where: str
    files: Mapping[str, Path]
    tensors: Mapping[str, str] | None
    pinned: Mapping[str, PinnedFile] = field(default_factory=dict)

    def header(self, name: str) -> Header:
        """The header of one of the files. Raises UserError for a broken file."""
        return read_header(self.pinned.get(name, self.files[name]))


def _repository(folder: Path) -> bool:
    """Whether a path reads like ORG/NAME of the hub."""
    return not folder.is_absolute() and len(folder.parts) == 2 and "." not in folder.parts[0]


def find_weights(folder: Path) -> Layout:
    """Find the weight files of a model folder without opening them.

    Raises UserError or ManyErrors for a folder without safetensors files, and for an index that is
    malformed or names files that are missing or outside the folder.
    """
    if not folder.is_dir():
        hub = f", or model=hub model.id={folder} for one of the hub" if _repository(folder) else ""
        raise UserError(
            f"there is no folder {folder}", remedy=f"give the path of a model folder{hub}"
        )
    for stem in STEMS:
        for name in (f"{stem}.safetensors", f"{stem}.safetensors.index.json"):
            if not is_plain(folder / name):
                continue
            if name.endswith(".json"):
                return _indexed(folder, name)
            return _single(folder, name)
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if len(names) == 1 and "-of-" not in names[0]:
        return _single(folder, names[0])
    raise _no_weights(folder, names)


def read_headers(layout: Layout) -> dict[str, Header]:
    """The headers of all files by file name; all broken files and missing tensors raise at once."""
    headers: dict[str, Header] = {}
    problems: list[UserError] = []
    for name in layout.files:
        try:
            headers[name] = layout.header(name)
        except UserError as error:
            problems.append(error)
    missing: dict[str, list[str]] = {}
    for tensor, name in (layout.tensors or {}).items():
        if name in headers and tensor not in headers[name].places:
            missing.setdefault(name, []).append(tensor)
    for name, tensors in missing.items():
        problems.append(
            UserError(
                f"{layout.files[name]} lacks {len(tensors)} tensors that the index of "
                f"{layout.where} puts there: {_some(tensors)}",
                remedy="fetch the checkpoint again",
            )
        )
    raise_all(problems)
    return headers


def parse_index(path: Path) -> dict[str, str]:
    """The `weight_map` of an index, tensor name -> file name; UserError if it is malformed."""
    index = read_json(path, longest=LONGEST_INDEX)
    tensors = index.get("weight_map")
    if not isinstance(tensors, dict) or not tensors:
        raise UserError(f"{path} has no weight_map", remedy="fetch it again")
    for tensor, file in tensors.items():
        if not isinstance(file, str):
            raise UserError(f"{path} says that tensor {tensor!r} is in {file!r}: that is no file")
    return tensors


def inside(folder: Path, name: str, *, said_by: str) -> Path:
    """The path of the file `name` in `folder`; UserError if it leads out of the folder.

    `said_by` is what names the file, for the message.
    """
    pure = PurePosixPath(name)
    windows = PureWindowsPath(name)
    bad = not name or "\0" in name or ".." in windows.parts
    if bad or pure.is_absolute() or windows.drive or windows.root:
        raise UserError(
            f"{said_by} names the file {name!r}, which is no path inside the folder",
            remedy="do not use this checkpoint unless you know who wrote it",
        )
    path = folder / pure
    try:
        real = path.resolve()
        path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, not encodable, a circle
        raise UserError(
            f"{said_by} names the file {name[:200]!r}, which no folder can have: {error}"
        ) from error
    if not real.is_relative_to(home_of(folder)):
        raise UserError(
            f"{path} is a link that leads out of its folder",
            remedy="put the file itself there, or a hard link to it",
        )
    return path


def home_of(folder: Path) -> Path:
    """The folder that symbolic links inside `folder` may not lead out of.

    It is the folder itself, but for a snapshot in the hub's cache, which consists of links to the
    blobs beside it.
    """
    folder = folder.resolve()
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent
    return folder


def raise_all(problems: list[UserError]) -> None:
    """Raise the errors, if there are any: a single one as it is, several as one ManyErrors."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ManyErrors(problems)


def _single(folder: Path, name: str) -> Layout:
    path = inside(folder, name, said_by=str(folder))
    return Layout(where=str(folder), files={name: path}, tensors=None)


def _indexed(folder: Path, name: str) -> Layout:
    tensors = parse_index(inside(folder, name, said_by=str(folder)))
    files: dict[str, Path] = {}
    problems: list[UserError] = []
    for file in sorted(set(tensors.values())):
        try:
            files[file] = inside(folder, file, said_by=str(folder / name))
        except UserError as error:
            problems.append(error)
    absent = [file for file, path in files.items() if not path.is_file()]
    if absent:
        problems.append(
            UserError(
                f"{folder / name} names {len(absent)} files that are not there: {_some(absent)}",
                remedy="fetch the missing files, or the whole checkpoint, again",
            )
        )
    raise_all(problems)
    return Layout(where=str(folder), files=files, tensors=tensors)


class NoWeights(UserError):
    """A folder holds no weights of any kind: a model of which only the config is there."""


def _no_weights(folder: Path, names: list[str]) -> UserError:
    if names:
        return UserError(
            f"{folder} has {len(names)} safetensors files ({_some(names)}) but no index",
            remedy="put model.safetensors.index.json beside them",
        )
    if any(next(folder.glob(pattern), None) for pattern in ("*.bin", "*.pt", "*.pth")):
        return UserError(
            f"{folder} has weights as pickle files only, which can run code when they are read",
            remedy="convert them to safetensors: load the model with transformers where you trust "
            "it and save it again with save_pretrained",
        )
    return NoWeights(
        f"{folder} has no weights: no model.safetensors and no model.safetensors.index.json",
        remedy="give the path of a model folder; for a .gguf file say model=gguf",
    )


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + rest
