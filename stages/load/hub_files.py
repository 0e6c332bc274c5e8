"""The Hugging Face hub and its cache: every failure is one line, and nothing waits for long."""

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
from stages.load.side_files import is_small, read_config
from stages.weights.checkpoint_files import STEMS, parse_index

Progress = Callable[[float, str], None]
TIMEOUT = 5.0  # seconds, for the first question to the hub
SECRET = re.compile(r"hf_\w{6,}|\?\S+")


class Unreachable(UserError):
    """There is no way to the hub from here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    """What the hub says of one revision of a repository."""

    commit: str
    names: tuple[str, ...]


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    return bool(hub.is_offline_mode())


def cached_commit(id: str, revision: str) -> str | None:
    """The commit that a branch or tag meant when it was last downloaded."""
    found = hub.try_to_load_from_cache(id, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def cached_snapshot(id: str, commit: str) -> Path | None:
    """The folder of a commit in the cache, complete or not."""
    found = hub.try_to_load_from_cache(id, "config.json", revision=commit)
    return Path(found).parent if isinstance(found, str) else None


def cached_config(id: str, commit: str) -> dict[str, Any] | None:
    """The config.json of a commit, if it is in the cache."""
    snapshot = cached_snapshot(id, commit)
    return read_config(snapshot / "config.json") if snapshot else None


def fetch_config(id: str, commit: str) -> dict[str, Any]:
    """The config.json of a commit; raises UserError where it cannot be had."""
    ask(id, commit)
    with _one_line(id, commit):
        return read_config(Path(hub.hf_hub_download(id, "config.json", revision=commit)))


def ask(id: str, revision: str) -> Revision:
    """Look a revision up; answers or raises UserError within seconds, unlike a download."""
    with _one_line(id, revision):
        info = hub.HfApi().model_info(id, revision=revision, timeout=TIMEOUT)
    if info.sha is None:
        raise UserError(f"the hub does not say which commit {revision!r} of {id} is")
    names = tuple(file.rfilename for file in info.siblings or ())
    return Revision(commit=info.sha, names=names)


def download(id: str, commit: str, *, code: bool, progress: Progress) -> Path:
    """Fetch the safetensors and small files of a commit; returns the snapshot's folder."""
    names = ask(id, commit).names
    weights = weight_names(id, commit, names)
    wanted = [*weights, *(name for name in names if is_small(name, code=code))]
    with _one_line(id, commit):
        done = hub.snapshot_download(
            id, revision=commit, allow_patterns=_exactly(wanted), tqdm_class=_bar(progress)
        )
    return Path(str(done))


def remember(id: str, revision: str) -> None:
    """Have the cache note which commit a branch or tag means, for when the hub is out of reach."""
    with _one_line(id, revision):
        hub.hf_hub_download(id, "config.json", revision=revision)


def weight_names(id: str, commit: str, names: Iterable[str]) -> list[str]:
    """Which files of a repository hold its weights, by the rule that folders are read by."""
    there = set(names)
    for stem in STEMS:
        if f"{stem}.safetensors" in there:
            return [f"{stem}.safetensors"]
        index = f"{stem}.safetensors.index.json"
        if index in there:
            with _one_line(id, commit):
                tensors = parse_index(Path(hub.hf_hub_download(id, index, revision=commit)))
            return [index, *sorted(set(tensors.values()) & there)]
    kinds = sorted({PurePosixPath(name).suffix for name in there if name.count("/") == 0} - {""})
    raise UserError(
        f"{id} has no safetensors on the hub, only {', '.join(kinds) or 'nothing'}",
        remedy="convert it to safetensors where you trust it, and use model=local model.path=DIR",
    )


def _bar(progress: Progress) -> Any:
    """A progress bar for the hub's client that tells `progress` instead of drawing."""

    def __init__(bar: Any, *args: Any, **settings: Any) -> None:
        base.__init__(bar, *args, **settings | {"file": io.StringIO()})

    def display(bar: Any, *args: Any, **settings: Any) -> None:
        if bar.total:
            progress(min(1.0, bar.n / bar.total), bar.desc or "downloading")

    base: Any = tqdm
    return type("Told", (base,), {"__init__": __init__, "display": display})


def _exactly(names: Iterable[str]) -> list[str]:
    """Patterns that match these names only."""
    return [re.sub(r"([*?\[])", r"[\1]", name) for name in names]


@contextmanager
def _one_line(id: str, revision: str) -> Iterator[None]:
    """Turn whatever the hub's client raises into one clear line without addresses or tokens."""
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
        raise UserError(f"the hub refused {id}: {_told(error)}", remedy="try again") from error
    except (httpx.HTTPError, errors.LocalEntryNotFoundError, ConnectionError) as error:
        raise Unreachable(
            f"the Hugging Face hub cannot be reached ({_told(error)}); "
            "use model=local model.path=DIR"
        ) from error
    except errors.EntryNotFoundError as error:
        raise UserError(f"{id} lacks a file on the hub: {_told(error)}") from error


def _told(error: Exception) -> str:
    """The first line of an error, without tokens and signed addresses."""
    lines = str(error).strip().splitlines()
    return SECRET.sub("...", lines[0])[:200] if lines else type(error).__name__
