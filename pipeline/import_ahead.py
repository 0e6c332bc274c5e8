"""Importing what nodes need, beside those that run already.

Large libraries make objects by the hundred thousand, all of which stay: looking through them for
garbage, as Python does every so often, takes a fifth of the time. So there is no such search
meanwhile, and later ones leave aside what is there then.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from pipeline.stage import Stage


def make_ready(stages: Iterable[Stage]) -> None:
    """Import what the first of `stages`, in the order in which they run, lacks."""
    if first := next(filter(_lacks, stages), None):
        _prepare(first)


@contextmanager
def importing(stages: Iterable[Stage]) -> Iterator[Callable[[Stage], None]]:
    """Import the modules of all `stages`, in the order in which they run, on a thread beside.

    Gives a function that waits until a stage may run: one that names its modules, as soon as they
    are there; others, which may import anything, when all is done. Modules that two threads import
    at once may be seen half made.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="imports") as pool:
        todo = {stage: pool.submit(_prepare, stage) for stage in stages if _lacks(stage)}

        def wait(stage: Stage) -> None:
            for other, done in todo.items():
                if other is stage or not stage.modules:
                    done.result()

        try:
            yield wait
        finally:
            pool.shutdown(cancel_futures=True)


def _lacks(stage: Stage) -> bool:
    return any(name not in sys.modules for name in stage.modules)


@contextmanager
def unsearched() -> Iterator[None]:
    """Context for importing: no search for garbage in it, and none later in what it leaves."""
    searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if searching:
            gc.enable()


def _prepare(stage: Stage) -> None:
    """Import a stage's modules, and let it warm up; one that is missing is for its run to tell."""
    with contextlib.suppress(ImportError), unsearched():
        for name in stage.modules:
            import_module(name)
        for name in stage.work[:1]:
            getattr(import_module(name), "warm_up", _no_need)(stage.config)


def _no_need(config: Any) -> None:
    """What a module has to warm up that says nothing of it."""
    del config
