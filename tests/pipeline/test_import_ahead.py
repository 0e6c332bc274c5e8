"""Stages' modules are imported ahead of their nodes; the search for garbage is left as it was."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import ClassVar

import pytest

from pipeline.import_ahead import importing, make_ready
from pipeline.planning.expand import expand
from pipeline.stage import Site, Survey
from tests.pipeline import sites as fake
from tests.pipeline.runner.test_local import site

LATE = "presswork_test_late"


class Late(fake.Source):
    """Needs a module that only this test has."""

    kind: ClassVar[str] = "late"
    modules: ClassVar[tuple[str, ...]] = (LATE, "presswork_test_that_nobody_has")

    def survey(self, site: Site) -> Survey:
        site.prepare()
        return Survey()


class Named(fake.Source):
    """Needs what is there."""

    kind: ClassVar[str] = "named"
    modules: ClassVar[tuple[str, ...]] = ("json",)


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Late]:
    (tmp_path / f"{LATE}.py").write_text("import gc\nSEARCHED = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield Late(fake.Number())
    sys.modules.pop(LATE, None)


def test_modules_are_imported_without_a_search_for_garbage(late: Late) -> None:
    make_ready([late])
    assert sys.modules[LATE].SEARCHED is False
    assert gc.isenabled()


def test_later_searches_leave_aside_what_was_there_after_the_imports(
    late: Late, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late.__class__, "modules", (LATE,))
    frozen: list[str] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append("now"))
    make_ready([late])
    make_ready([late])  # what a job before this one has left is none of it
    assert frozen == ["now"]


def test_a_search_that_was_off_stays_off(late: Late) -> None:
    gc.disable()
    try:
        make_ready([late])
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(("mode", "imported"), [("run", True), ("plan", False)])
def test_a_survey_can_ask_for_them_early_but_not_to_plan(
    late: Late, mode: str, imported: bool
) -> None:
    sites = {"late": site(late, final=True)}
    expand(sites, mode=mode, find=lambda key: None, build=lambda graph, ref: None)
    assert (LATE in sys.modules) is imported


def test_a_stage_warms_up_once_its_modules_are_there(
    late: Late, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late.__class__, "modules", (LATE,))
    monkeypatch.setattr(late.__class__, "work", (LATE,))
    Path(str(sys.path[0]), f"{LATE}.py").write_text(
        "import sys\nSEEN = []\n"
        f"def warm_up(config):\n    SEEN.append(({LATE!r} in sys.modules, config.value))\n"
    )
    make_ready([late])
    make_ready([late])
    assert sys.modules[LATE].SEEN == [(True, 0)]


def test_nodes_run_beside_imports_of_others_unless_they_may_import_anything(
    late: Late, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = Event(), Event()
    monkeypatch.setattr(late.__class__, "modules", (LATE,))

    def slow(name: str) -> None:
        begun.set()
        assert go_on.wait(10)
        import_module(name)

    monkeypatch.setattr("pipeline.import_ahead.import_module", slow)
    named, unnamed = Named(fake.Number()), fake.Source(fake.Number())
    with ThreadPoolExecutor(2) as pool, importing([named, late, unnamed]) as wait:
        assert begun.wait(10)
        wait(named)
        waiting = [pool.submit(wait, stage) for stage in (late, unnamed)]
        assert not any(each.done() for each in waiting)
        go_on.set()
        for each in waiting:
            each.result(10)
    assert gc.isenabled()


def test_what_an_import_raises_meets_the_node_that_needs_it(
    late: Late, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late.__class__, "modules", (LATE,))
    Path(str(sys.path[0]), f"{LATE}.py").write_text("raise RuntimeError('no driver')\n")
    with importing([late]) as wait, pytest.raises(RuntimeError, match="no driver"):
        wait(late)
