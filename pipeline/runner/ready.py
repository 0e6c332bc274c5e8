"""Importing what nodes need before they run: all at once, and with no search for garbage."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from importlib import import_module

from pipeline.stage import Stage


def make_ready(stages: Iterable[Stage]) -> None:
    """Import the modules of these stages; one that is missing is for its stage to tell.

    Large libraries make objects by the hundred thousand, all of which stay: looking through them
    for garbage, as Python does every so often, takes a fifth of the time. Later searches leave
    aside what is there then.
    """
    names = dict.fromkeys(name for stage in stages for name in stage.modules)
    todo = [name for name in names if name not in sys.modules]
    if not todo:
        return
    searching = gc.isenabled()
    gc.disable()
    try:
        for name in todo:
            try:
                import_module(name)
            except ImportError:
                continue
    finally:
        gc.freeze()
        if searching:
            gc.enable()
