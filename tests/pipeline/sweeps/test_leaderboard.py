"""sweep.json: what is made of the files that jobs leave."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.errors import UserError
from pipeline.sweeps.page import write_sweep
from pipeline.sweeps.pareto import front, measure, quality
from pipeline.sweeps.summary import print_summary
from tests.pipeline.sweeps.folder import STARTED, four_schemes, job, node, plan, result


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    four_schemes(tmp_path / "sweep")
    return tmp_path / "sweep"


def test_every_job_has_a_row_with_what_became_of_it(sweep: Path) -> None:
    found = write_sweep(sweep)
    assert json.loads((sweep / "sweep.json").read_text()) == found
    assert [row["status"] for row in found["jobs"]] == ["ok", "ok", "ok", "failed", "missing"]
    assert found["jobs"][3]["error"] == "calibrate[0]: <b>odd</b> data"
    assert found["jobs"][4]["error"] == "it was never begun"
    assert found["jobs"][4]["differs"] == {"scheme": "never"}
    assert found["status"] == "unfinished"
    first = found["jobs"][0]
    assert (first["size_bytes"], first["perplexity"], first["kl"]) == (300, 22.0, 0.07)
    assert first["relative_error"] == pytest.approx(0.02)
    assert (first["built"], first["reused"], first["folder"]) == (2, 0, "0")
    assert found["seconds"] == 38.0


def test_the_terminal_has_one_line_for_each_job_that_is_not_done(sweep: Path) -> None:
    out = io.StringIO()
    found = write_sweep(sweep)
    found["jobs"][0] |= {"status": "interrupted", "error": None}
    print_summary(found, sweep, Console(file=out, width=80, color_system=None))
    lines = out.getvalue().splitlines()
    told = lines[lines.index("3 of 5 jobs are not done:") + 1 :][:3]
    assert told[0].startswith("  job 0 was interrupted: scheme=") and not told[0].endswith(": ")
    assert told[1].endswith("calibrate[0]: <b>odd</b> data") and " failed: " in told[1]
    assert told[2] == "  job 4 is missing: scheme=never: it was never begun"


def test_only_the_keys_that_differ_are_told(sweep: Path) -> None:
    found = write_sweep(sweep)
    assert found["differing"]["by_override"] == ["scheme"]
    assert found["differing"]["by_config"] == {"scheme.weights.num_bits": {"0": 4, "1": 8, "2": 4}}


def test_a_key_that_only_some_jobs_have_differs(tmp_path: Path) -> None:
    plan(tmp_path, [("a=1",), ("a=2",)])
    job(tmp_path, 0, ("a=1",), None, config={"x": {"y": None}})
    job(tmp_path, 1, ("a=2",), None, config={"x": {}, "graph": {"nodes": {"n": 1}}})
    assert write_sweep(tmp_path)["differing"]["by_config"] == {"x.y": {"0": None}}


def test_what_was_shared_is_counted_in_seconds_of_its_building(sweep: Path) -> None:
    shared = write_sweep(sweep)["sharing"]
    assert (shared["needed"], shared["built"], shared["shared"], shared["earlier"]) == (4, 3, 1, 0)
    assert shared["seconds_built"] == 10.0
    assert shared["seconds_saved"] == 5.0
    # the job itself knows of 6 s: one more than what it got from this sweep
    assert shared["seconds_saved_earlier"] == 1.0
    assert shared["built_twice"] == []
    assert shared["kinds"][0]["kind"] == "calibrate"


def test_what_two_jobs_built_is_named(tmp_path: Path) -> None:
    plan(tmp_path, [("a=1",), ("a=2",)])
    for number in (0, 1):
        nodes = [node("load", "aa"), node("save", f"{number}")]
        job(tmp_path, number, (f"a={number}",), result(9, 1.0, nodes))
    shared = write_sweep(tmp_path)["sharing"]
    assert shared["built_twice"] == ["load"]


def test_the_best_job_and_the_pareto_front(sweep: Path) -> None:
    found = write_sweep(sweep)
    assert found["quality"] == {
        "path": "eval.perplexity.compressed",
        "name": "perplexity",
        "direction": "minimize",
    }
    assert found["best"] == 1
    assert found["front"] == [0, 1]
    assert [row["front"] for row in found["jobs"]] == [True, True, False, False, False]
    assert found["original"] == {"size_bytes": 1000, "perplexity": 20.0, "quality": 20.0}


def test_an_objective_is_what_the_leaderboard_is_about(tmp_path: Path) -> None:
    objective = ("size.compressed_bytes", "eval.top1_agreement")
    plan(tmp_path, [("a=1",)], objective=objective, directions=("minimize", "maximize"))
    job(tmp_path, 0, ("a=1",), result(9, 1.0))
    found = write_sweep(tmp_path)
    assert found["quality"]["path"] == "eval.top1_agreement"
    assert found["quality"]["direction"] == "maximize"
    assert found["jobs"][0]["objective"] == {objective[0]: 9, objective[1]: 0.9}


def test_without_evaluation_the_layers_error_is_the_quality(tmp_path: Path) -> None:
    by = quality([result(9, None), result(8, None)], (), ())
    assert by is not None and by.name == "mean relative error"
    assert quality([{"layers": []}], (), ()) is None


def test_a_job_whose_process_died_is_missing_with_its_place(tmp_path: Path) -> None:
    plan(tmp_path, [("a=1",)])
    job(tmp_path, 0, ("a=1",), result(9, 1.0), status="running")
    [row] = write_sweep(tmp_path)["jobs"]
    assert row["status"] == "missing"
    assert row["error"] == "it began on here as process 77 and left no result"


def test_runs_that_no_sweep_made_make_a_leaderboard_too(tmp_path: Path) -> None:
    for name, size in (("one", 5), ("two", 4)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("a: 1")
        (tmp_path / name / "result.json").write_text(json.dumps(result(size, float(size))))
    found = write_sweep(tmp_path)
    assert [row["differs"]["run"] for row in found["jobs"]] == ["one", "two"]
    assert found["front"] == [1]


def test_a_folder_with_neither_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no sweep and no run"):
        write_sweep(tmp_path / "nothing")


numbers = st.integers(0, 6).map(float)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8), st.booleans())
def test_the_front_is_what_no_other_point_beats(
    points: list[tuple[float, float]], upwards: bool
) -> None:
    sign = -1 if upwards else 1
    by = measure("x", "maximize" if upwards else "minimize")
    found = front(dict(enumerate(points)), by)

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        a, b = (one[0], sign * one[1]), (other[0], sign * other[1])
        return a != b and a[0] <= b[0] and a[1] <= b[1]

    expected = {
        number
        for number, point in enumerate(points)
        if not any(beats(other, point) for other in points)
    }
    assert set(found) == expected and found
    assert all(points[a][0] <= points[b][0] for a, b in itertools.pairwise(found))


def test_a_sweep_that_starts_again_in_its_folder_forgets_the_jobs_of_before(sweep: Path) -> None:
    plan(sweep, [("a=1",)])
    job(sweep, 0, ("a=1",), result(9, 1.0))
    found = write_sweep(sweep)
    assert [row["number"] for row in found["jobs"]] == [0]
    assert found["started"].startswith("2023-11-1") and STARTED
