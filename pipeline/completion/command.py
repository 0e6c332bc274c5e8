"""`presswork -sc query=SHELL|install=SHELL|uninstall=SHELL`: what a shell asks for completion.

A shell asks at every press of a key and waits: this module and those it imports at its top take a
few milliseconds, and Hydra is imported only for names that no earlier question brought up.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pipeline.completion.matches import candidates
from pipeline.completion.names import Names, known, remember

FLAGS = ("-sc", "--shell-completion", "--shell_completion")
ASKED = ("query", "install", "uninstall")


def is_asked(argv: Sequence[str]) -> bool:
    """Whether a command line is a shell's question."""
    return any(word in FLAGS for word in argv) and bool(_asked(argv))


def answer(argv: Sequence[str]) -> int:
    """Print the candidates for COMP_LINE up to COMP_POINT, one a line, or a script for a shell.

    The exit code is 1 for a shell that there is no script for.
    """
    what, _, shell = _asked(argv).partition("=")
    if what != "query":
        from pipeline.completion.scripts import script

        text = script(shell, uninstall=what == "uninstall")
        if text is None:
            sys.stderr.write(f"error: {shell!r} is no shell that this knows: bash, zsh or fish\n")
            return 1
        sys.stdout.write(text)
        return 0
    line = os.environ.get("COMP_LINE", "")
    point = os.environ.get("COMP_POINT", "")
    words = arguments(line[: int(point)] if point.isdigit() else line)
    sys.stdout.write("".join(f"{each}\n" for each in completed(words)))
    return 0


def completed(words: Sequence[str]) -> list[str]:
    """The candidates for the last of the words that follow the command."""
    *before, word = words

    def names() -> Names:
        found = known(before)
        if found is None:
            from pipeline.completion.collect import names_of

            found, files = names_of(before)
            remember(before, found, files)
        return found

    def values(key: str) -> Names:
        found = known(before, key)
        if found is None:
            from pipeline.completion.collect import values_of

            found, files = values_of(before, key)
            remember(before, found, files, key)
        return found

    return candidates(word, before[-1] if before else "", names, values)


def arguments(line: str) -> list[str]:
    """The words of a line after the command; the last is the one at the cursor, maybe empty."""
    words = line.split()
    if not words or line[-1].isspace():
        words.append("")
    program = os.path.basename(words[0])
    through_python = program.startswith("python") and words[1:2] == ["-m"]
    return words[3:] or [""] if through_python else words[1:] or [""]


def _asked(argv: Sequence[str]) -> str:
    return next((word for word in argv if word.partition("=")[0] in ASKED), "")
