"""Dataset on the Hugging Face hub (`dataset=hub`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.key import Json
from stages.tokens.dataset import Document
from stages.tokens.datasets.rows import Rows, readable

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Hub(Rows):
    """Rows of a hub dataset at one commit.

    `config` and `split` are the dataset's own names. `revision` is a branch, a tag or a commit;
    with a commit, nothing has to be asked of the hub once the tokens are stored. `streaming`
    reads only what is needed instead of downloading the dataset.
    """

    kind: ClassVar[str] = "hub"

    id: str = field(metadata={"lands": True})
    """The dataset on the hub: OWNER/NAME."""
    config: str | None = field(default=None, metadata={"lands": True})
    split: str = field(default="train", metadata={"lands": True})
    revision: str = field(default="main", metadata={"key": False})
    streaming: bool = field(default=True, metadata={"key": False})

    def identity(self) -> Json:
        if _COMMIT.fullmatch(self.revision):
            return {"commit": self.revision}
        return {"commit": _commit(self.id, self.revision)}

    def documents(self, scratch: Path) -> Iterator[Document]:
        del scratch
        commit = self.identity()["commit"]
        _commit(self.id, commit)
        import datasets

        with readable(self.describe()):
            yield from self.from_rows(
                datasets.load_dataset(
                    self.id,
                    self.config,
                    split=self.split,
                    revision=commit,
                    streaming=self.streaming,
                )
            )

    def describe(self) -> str:
        return " ".join(filter(None, ("hub dataset", self.id, self.config, self.split)))


@lru_cache(maxsize=64)
def _commit(id: str, revision: str) -> str:
    """The commit of a branch, tag or commit on the hub; UserError if the hub does not have it."""
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        commit = HfApi().dataset_info(id, revision=revision, timeout=10).sha
    except HFValidationError as error:
        raise UserError(
            f"{id!r} is no dataset id", remedy="ids look like Salesforce/wikitext"
        ) from error
    except HfHubHTTPError as error:
        raise UserError(
            f"the hub has no dataset {id} at revision {revision} that can be read from here",
            remedy="check dataset.id and dataset.revision; a gated dataset needs HF_TOKEN",
        ) from error
    except (HTTPError, OSError, OfflineModeIsEnabled) as error:
        raise UserError(
            f"the hub cannot be reached to look up the dataset {id}",
            remedy="use a local dataset (dataset=text dataset.path=FILE), or pydoc",
        ) from error
    if commit is None:
        raise UserError(f"the hub names no commit for dataset {id} at revision {revision}")
    return str(commit)
