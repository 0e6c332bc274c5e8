"""Masks for access tokens and credentials in whatever is printed or written: the last net.

Values of the environment are kept out of reports and files by their origin
(`pipeline.config.environment`). Here is what is known by its look alone.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO, cast

SHAPE = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"hf_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|api_org_[A-Za-z0-9]{16,}"  # Hugging Face, organizations
    r"|sk-[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic and others
    r"|gh[opsur]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}"  # GitHub
    r"|glpat-[A-Za-z0-9_-]{16,}"  # GitLab
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}"  # Slack
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}"  # Amazon
    r"|AIza[A-Za-z0-9_-]{30,}"  # Google
    r"|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"  # JSON web tokens
    r")"
)
"""Access tokens that services mark by a prefix."""

MASK = "***"
_PREFIX = re.compile(r"hf_|api_org_|sk-|gh\w_|github_pat_|glpat-|xox\w-|AKIA|ASIA|AIza|eyJ")
_BEARER = re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{20,}")
_CREDENTIALS = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^/\s@\"'<>\\]+@")
_QUERY = re.compile(
    r"(?i)([?&;][\w-]*(?:token|secret|signature|password|credential|api_?key)[\w-]*=)"
    r"[^&;\s\"'<>\\]+"
)
_SECRET_NAME = re.compile(
    r"(?i)(?:^|_)(?:token|secret|password|passwd|api_?key|access_?key|pat|credentials?)(?:_|$)"
)
_SHORTEST = 8
"""Characters of a variable's value that is looked for: shorter ones are ordinary words."""

_read: set[str] = set()
"""Variables that a config of this process refers to; like logging, one net for the process."""


def note_variable(name: str) -> None:
    """Mask the value of a variable in errors, whatever its name is."""
    _read.add(name)


def names_secret(variable: str) -> bool:
    """Whether a variable of the environment holds an access token, by its name."""
    return _SECRET_NAME.search(variable) is not None


def masked(text: str, *, error: bool = False) -> str:
    """A text without tokens and credentials; values of secret variables become `${oc.env:NAME}`.

    In an error also those of variables that a config refers to.
    """
    for name, value in _secrets(_read if error else ()):
        if value in text:
            text = text.replace(value, f"${{oc.env:{name}}}")
    return without_secrets(text)


def without_secrets(text: str) -> str:
    """A text without access tokens of known shapes and credentials of addresses."""
    if "://" in text:
        text = _QUERY.sub(rf"\1{MASK}", _CREDENTIALS.sub(rf"\1{MASK}@", text))
    return _BEARER.sub(rf"\1{MASK}", SHAPE.sub(_prefix, text))


def printable(text: str) -> str:
    """A text whose control characters are spelt out: what strangers write steers no terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def is_secret(text: str) -> bool:
    """Whether a text as a whole has the shape of an access token."""
    return SHAPE.fullmatch(text) is not None


@contextmanager
def masked_streams() -> Iterator[None]:
    """Context in which what Python prints on standard output and error is masked."""
    with ExitStack() as stack:
        if not isinstance(sys.stdout, _Masked):
            stack.enter_context(redirect_stdout(cast(TextIO, _Masked(sys.stdout))))
        if not isinstance(sys.stderr, _Masked):
            stack.enter_context(redirect_stderr(cast(TextIO, _Masked(sys.stderr))))
        yield


class _Masked:
    """A text stream that masks what is written to it; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(masked(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _secrets(also: Container[str]) -> Iterator[tuple[str, str]]:
    """Variables whose values are secret by their name, and others; no paths."""
    for name, value in os.environ.items():
        secret = name in also or _SECRET_NAME.search(name)
        if secret and len(value) >= _SHORTEST and os.sep not in value and not value.isspace():
            yield name, value


def _prefix(match: re.Match[str]) -> str:
    prefix = _PREFIX.match(match[0])
    return f"{prefix[0] if prefix else ''}{MASK}"
