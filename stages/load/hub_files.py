"""Access to the Hugging Face hub and its cache, with short timeouts and errors of one line."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import httpx
import huggingface_hub as hub
from huggingface_hub import errors
from huggingface_hub.utils.tqdm import tqdm

from pipeline.errors import UserError
from stages.load.code_files import CONFIGS, LONGEST, named_code
from stages.load.side_files import is_small, read_config
from stages.weights.checkpoint_files import STEMS, parse_index
from stages.weights.untrusted_json import read_json

Progress = Callable[[float, str], None]
TIMEOUT = 5.0  # seconds, for the first request to the hub
SECRET = re.compile(r"hf_\w{6,}|\?\S+")


class Unreachable(UserError):
    """The hub cannot be reached."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    """Commit and file names of one revision of a repository."""

    commit: str
    names: tuple[str, ...]


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    return bool(hub.is_offline_mode())


def cached_commit(id: str, revision: str) -> str | None:
    """The commit of a branch or tag when it was last downloaded; None if it is not cached."""
    found = hub.try_to_load_from_cache(id, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def cached_snapshot(id: str, commit: str) -> Path | None:
    """The folder of a commit in the cache, complete or not."""
    found = hub.try_to_load_from_cache(id, "config.json", revision=commit)
    return Path(found).parent if isinstance(found, str) else None


def cached_config(id: str, commit: str) -> dict[str, Any] | None:
    """The config.json of a commit in the cache; None if it is not cached."""
    snapshot = cached_snapshot(id, commit)
    return read_config(snapshot / "config.json") if snapshot else None


def fetch_config(id: str, commit: str) -> dict[str, Any]:
    """The config.json of a commit; UserError if it cannot be fetched."""
    ask(id, commit)
    with _one_line(id, commit):
        return read_config(Path(hub.hf_hub_download(id, "config.json", revision=commit)))


def ask(id: str, revision: str) -> Revision:
    """Look up a revision; returns or raises UserError within seconds, unlike a download."""
    with _one_line(id, revision):
        info = hub.HfApi().model_info(id, revision=revision, timeout=TIMEOUT)
    if info.sha is None:
        raise UserError(f"the hub does not say which commit {revision!r} of {id} is")
    names = tuple(file.rfilename for file in info.siblings or ())
    return Revision(commit=info.sha, names=names)


def download(id: str, commit: str, *, code: bool, progress: Progress) -> Path:
    """Fetch the safetensors and small files of a commit; returns the snapshot's folder.

    Python files are among them with `code`, or where the model's configs name any.
    """
    names = ask(id, commit).names
    weights = weight_names(id, commit, names)
    code = code or any(_names_code(id, commit, name) for name in CONFIGS if name in names)
    wanted = [*weights, *(name for name in names if is_small(name, code=code))]
    with _one_line(id, commit):
        snapshot = hub.snapshot_download(
            id, revision=commit, allow_patterns=_exactly(wanted), tqdm_class=_bar(progress)
        )
    return Path(str(snapshot))


def _names_code(id: str, commit: str, name: str) -> bool:
    with _one_line(id, commit):
        path = Path(hub.hf_hub_download(id, name, revision=commit))
    return any(named_code(read_json(path, longest=LONGEST)))


def remember(id: str, revision: str) -> None:
    """Record the commit of a branch or tag in the cache, for when the hub cannot be reached."""
    with _one_line(id, revision):
        hub.hf_hub_download(id, "config.json", revision=revision)


def weight_names(id: str, commit: str, names: Iterable[str]) -> list[str]:
    """The weight files of a repository, by the rule by which folders are read."""
    files = set(names)
    for stem in STEMS:
        if f"{stem}.safetensors" in files:
            return [f"{stem}.safetensors"]
        index = f"{stem}.safetensors.index.json"
        if index in files:
            with _one_line(id, commit):
                tensors = parse_index(Path(hub.hf_hub_download(id, index, revision=commit)))
            return [index, *sorted(set(tensors.values()) & files)]
    kinds = sorted({PurePosixPath(name).suffix for name in files if name.count("/") == 0} - {""})
    raise UserError(
        f"{id} has no safetensors on the hub, only {', '.join(kinds) or 'nothing'}",
        remedy="convert it to safetensors where you trust it, and use model=local model.path=DIR",
    )


def _bar(progress: Progress) -> Any:
    """A progress bar class for the hub's client that calls `progress` instead of drawing."""

    def __init__(bar: Any, *args: Any, **settings: Any) -> None:
        base.__init__(bar, *args, **settings | {"file": io.StringIO()})

    def display(bar: Any, *args: Any, **settings: Any) -> None:
        if bar.total:
            progress(min(1.0, bar.n / bar.total), bar.desc or "downloading")

    base: Any = tqdm
    return type("ProgressBar", (base,), {"__init__": __init__, "display": display})


def _exactly(names: Iterable[str]) -> list[str]:
    """Patterns that match these names only."""
    return [re.sub(r"([*?\[])", r"[\1]", name) for name in names]


@contextmanager
def _one_line(id: str, revision: str) -> Iterator[None]:
    """Context that turns exceptions of the hub's client into one line without URLs or tokens."""
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f"{id} is gated: this machine's user has no access to it",
            remedy=f"accept its licence at https://huggingface.co/{id} and set HF_TOKEN",
        ) from error
    except (errors.RevisionNotFoundError, errors.RevisionResolutionError) as error:
        raise UserError(
            f"{id} has no revision {revision!r} on the hub", remedy="look at model.revision"
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise UserError(
            f"the hub has no model {id}, or it is private",
            remedy="look at model.id; for a private model set HF_TOKEN",
        ) from error
    except (errors.HfHubHTTPError, errors.XetDownloadError) as error:
        raise UserError(f"the hub refused {id}: {_message(error)}", remedy="try again") from error
    except (httpx.HTTPError, errors.LocalEntryNotFoundError, ConnectionError) as error:
        raise Unreachable(
            f"the Hugging Face hub cannot be reached ({_message(error)}); "
            "use model=local model.path=DIR"
        ) from error
    except errors.EntryNotFoundError as error:
        raise UserError(f"{id} lacks a file on the hub: {_message(error)}") from error


def _message(error: Exception) -> str:
    """The first line of an error, without tokens and signed addresses."""
    lines = str(error).strip().splitlines()
    return SECRET.sub("...", lines[0])[:200] if lines else type(error).__name__
