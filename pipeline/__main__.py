"""The program `presswork` and `python -m pipeline`: a shell's question, or a command."""

from __future__ import annotations

import gc
import sys

from pipeline.completion.command import answer, is_asked


def main() -> None:
    """Answer a shell's question for completion, or run a command; exits with its code."""
    if is_asked(sys.argv[1:]):
        sys.exit(answer(sys.argv[1:]))
    gc.disable()  # what is imported stays: looking through it for garbage takes a tenth of the time
    from pipeline.cli import main as command

    gc.freeze()
    gc.enable()
    command()


if __name__ == "__main__":
    main()
