"""Importing what nodes need before they run: all at once, and with no search for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from importlib import import_module

from pipeline.stage import Stage


def make_ready(stages: Iterable[Stage]) -> None:
    """Import the modules of these stages.

    Large libraries make objects by the hundred thousand, all of which stay: looking through them
    for garbage, as Python does every so often, takes a fifth of the time. Where the search was
    switched off before, for the start of a program, it begins here, and leaves aside what is there.
    """
    searching = gc.isenabled()
    gc.disable()
    try:
        import_all(stages)
    finally:
        if not searching:
            gc.freeze()
        gc.enable()


def import_all(stages: Iterable[Stage]) -> None:
    """Import the modules of these stages; one that is missing is for its stage to tell."""
    for name in dict.fromkeys(name for stage in stages for name in stage.modules):
        try:
            import_module(name)
        except ImportError:
            continue
