"""pipeline knows no language model: none of its files has a word of one."""

from __future__ import annotations

import re
from pathlib import Path

import pipeline

ROOT = Path(pipeline.__file__).parent
SUFFIXES = (".py", ".html", ".js", ".css")

WORDS = re.compile(
    r"perplexity|decoder|layer|expert|token|quantiz|bits[_ ]per[_ ]weight|\bkl\b|\blogit",
    re.IGNORECASE,
)

ALLOWED = {
    "store/leases.py": "token",  # a name that marks the folders of one process
    "store/evict.py": "token",
    "store/store.py": "token",
    "store/config.py": "layer",  # help on the key store.keep_activations, which is older
    "masking.py": "token",  # what gives access
    "config/called.py": "token",  # random bytes in hexadecimal
}
"""File -> the one word that it may have, for a reason that is no language model's."""


def words(path: Path) -> set[str]:
    return {match.lower() for match in WORDS.findall(path.read_text(encoding="utf-8"))}


def test_no_file_of_the_framework_has_a_word_of_language_models() -> None:
    files = [path for path in sorted(ROOT.rglob("*")) if path.suffix in SUFFIXES]
    assert len(files) > 80
    found = {
        name: rest
        for path in files
        if (rest := words(path) - {ALLOWED.get(name := path.relative_to(ROOT).as_posix(), "")})
    }
    assert found == {}


def test_the_exceptions_are_still_needed() -> None:
    assert all(word in words(ROOT / name) for name, word in ALLOWED.items())
