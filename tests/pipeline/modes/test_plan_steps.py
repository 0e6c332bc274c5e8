"""`mode=plan`: steps in groups, what a run takes of the disk, what differs, what cannot be."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.errors import UserError
from pipeline.graph import Graph, Ref
from pipeline.modes.plan import about, print_difference
from pipeline.objective import check_paths
from pipeline.planning.plan import make_plan, steps_by_site
from pipeline.report.units import duration
from pipeline.runs.diff import ABSENT, Difference, last_alike, summarized
from pipeline.runs.folders import Run
from tests.pipeline.graphs import node


def plan_of(count: int, *stored: int) -> tuple[tuple[str, int, int], tuple[str, ...]]:
    """The row of a site with `count` nodes, of which some are stored, and the idle sites."""
    nodes = [node(f"solve[{i}]", index=i, i=i) for i in range(count)] + [node("idle")]
    refs = [Ref(node=f"solve[{i}]", output="out") for i in range(count)]
    graph = Graph.of(nodes, refs)
    keys = {graph.keys[refs[i]] for i in stored}
    (row,), idle = steps_by_site(make_plan(graph, keys.__contains__))
    return (row.name, len(row.building), row.stored), idle


def test_the_nodes_of_a_site_are_one_row_with_the_range_that_is_built() -> None:
    assert plan_of(5) == (("solve[0-4]", 5, 0), ("idle",))
    assert plan_of(5, 0, 1)[0] == ("solve[2-4]", 3, 2)
    assert plan_of(5, 0, 1, 2, 3)[0] == ("solve[4]", 1, 4)
    assert plan_of(5, 1)[0] == ("solve[...]", 4, 1)
    assert plan_of(2, 0, 1)[0] == ("solve", 0, 2)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.42, "0.4 s"),
        (7.6, "8 s"),
        (75, "1 min 15 s"),
        (7260, "2 h 01 min"),
        (172_700, "47 h 58 min"),
        (300_000, "3 d 11 h"),
    ],
)
def test_times_are_told_in_the_unit_that_fits(seconds: float, shown: str) -> None:
    assert about(seconds) == shown
    if seconds > 60:
        assert duration(seconds) == shown


def run_in(folder: Path, **config: object) -> Run:
    folder.mkdir()
    (folder / "config.yaml").write_text(json.dumps({"model": {"id": "a"}, **config}))
    return Run(
        folder=folder,
        status="ok",
        seconds=1.0,
        built=1,
        reused=0,
        checkpoint=None,
        keys=frozenset(),
    )


def test_a_plan_is_compared_with_a_run_and_no_sensitivity(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run", mode="run")
    measured = run_in(tmp_path / "measured", mode="sensitivity")
    other = run_in(tmp_path / "other", mode="run", experiment="x")
    assert last_alike([run, measured, other], {"model": {"id": "a"}}) is run
    assert last_alike([measured], {"model": {"id": "a"}}) is None


def test_a_difference_is_ten_lines_at_most(tmp_path: Path) -> None:
    keys = {f"section{i}.value": (i, "long text " * 20) for i in range(30)}
    sites = {f"site{i}": {"same": 1, "other": 9, "new": 2, "gone": 3} for i in range(40)}
    out = io.StringIO()
    run = run_in(tmp_path / "run")
    print_difference(Difference(keys=keys, sites=sites), run, Console(file=out, width=80))
    lines = out.getvalue().strip("\n").splitlines()
    told = lines[next(i for i, line in enumerate(lines) if "(ok)" in line) :]
    assert len(told) <= 10 and max(map(len, lines)) <= 80  # before it: the folder, however long
    assert "  and 25 more" in lines


def test_a_section_that_only_one_side_has_is_one_line_and_the_graph_comes_last() -> None:
    keys = {
        "graph.nodes.a.kind": ("x", "y"),
        "modifier.one.a": (1, ABSENT),
        "modifier.one.b": (2, ABSENT),
        "modifier.two.a": (ABSENT, 1),
        "scheme.bits": (4, 8),
    }
    assert list(summarized(keys).items()) == [
        ("modifier.one.*", ("2 keys", ABSENT)),
        ("modifier.two.a", (ABSENT, 1)),
        ("scheme.bits", (4, 8)),
        ("graph.nodes.a.kind", ("x", "y")),
    ]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("eval.perplexity.compresed", "did you mean eval.perplexity.compressed?"),
        ("perplexity", "choose one of eval."),
        ("nonsense.path", "choose one of eval."),
    ],
)
def test_an_objective_that_no_result_has_is_told_before_the_run(path: str, hint: str) -> None:
    with pytest.raises(UserError, match="objective is") as raised:
        check_paths([path])
    assert hint in raised.value.remedy


def test_an_objective_that_nothing_measures_is_told_before_the_run() -> None:
    for path, remedy in (
        ("eval.kl.mean", "eval=standard"),
        ("tasks.mean.compressed", "eval=tasks"),
    ):
        with pytest.raises(UserError, match=f"{path}', which nothing in this graph") as raised:
            check_paths(["size.compressed_bytes", path], {"load", "save"})
        assert remedy in raised.value.remedy
    check_paths(["eval.kl.mean"], {"load", "eval"})
    check_paths(["tasks.mean.compressed"], {"tasks"})


def test_any_number_of_a_result_may_be_an_objective() -> None:
    check_paths(["eval.perplexity.compressed", "eval.perplexity.tokens", "seconds", "timings.save"])
