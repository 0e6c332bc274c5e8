"""Load the tokenizer of a model folder; whatever its libraries raise becomes one clear error."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from transformers import AutoTokenizer

from pipeline.errors import UserError
from stages.model.tokenizer.check import check_ids, of_rust, reason_of

FAULTS: tuple[type[Exception], ...] = (
    *(ArithmeticError, AttributeError, AssertionError, ImportError, LookupError, OSError),
    *(RuntimeError, TypeError, ValueError, TemplateError, StrictDataclassError),
)
"""What transformers raises for files of another kind than it expects."""
FETCH = "fetch the tokenizer's files (tokenizer.json, tokenizer_config.json) again"


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a model folder; UserError if its files are broken or do not fit together."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    check_ids(folder)
    with readable("the model's tokenizer cannot be loaded"):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)


@contextmanager
def readable(problem: str, remedy: str = FETCH) -> Iterator[None]:
    """Context in which what a tokenizer's libraries raise becomes a UserError with `problem`.

    A full disk is another matter, and goes on.
    tokenizers raises `Exception` itself, and panics where a file promises what it has not.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or not (of_rust(error) or isinstance(error, FAULTS)):
            raise
        raise UserError(f"{problem}: {reason_of(error)}", remedy=remedy) from error
