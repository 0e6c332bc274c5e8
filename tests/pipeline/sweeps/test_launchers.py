"""Sweeps by every launcher: the same results, one store, a prefix that is built once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.pipeline.sweeps.plugin import LONGEST, Place, wait_for

pytestmark = pytest.mark.timeout(600)

FAKES = Path(__file__).parent / "slurm"


def check(here: Place, *, shared: int = 2) -> None:
    """Three jobs, of which the second fails; the prefix is built once for all."""
    found = here.result()
    assert [row["status"] for row in found["jobs"]] == ["ok", "failed", "ok"]
    assert "thirteen cannot be scored" in found["jobs"][1]["error"]
    assert [row["perplexity"] for row in found["jobs"]] == [24.0, None, 25.0]
    assert here.prefixes() == {"begun": 1, "done": 1}
    assert found["sharing"]["shared"] == shared and found["sharing"]["built_twice"] == []
    assert (here.folder / "store").is_dir() and (here.folder / "sweep/sweep.html").is_file()


def test_a_sweep_goes_on_after_a_failure_tells_it_once_and_runs_only_what_is_missing(
    here: Place,
) -> None:
    done = here.sweep("score.times=2,13,9")
    assert done.returncode == 1
    assert "Error executing job" not in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.index("job 1: error: score: thirteen") < done.stderr.index("job 2: score")
    assert done.stdout.count("1 of 3 jobs is not done") == 1
    check(here)
    again = here.sweep("score.times=2,13,9")
    assert again.returncode == 1
    assert [row["built"] for row in here.result()["jobs"]] == [0, 0, 0]
    assert here.prefixes() == {"begun": 1, "done": 1}


def test_joblib_runs_jobs_side_by_side_on_one_store(here: Place) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ("score.times=2,13,9", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = here.held_sweep("prefix: another process is building it, waiting", *words)
    assert done.returncode == 1, done.stderr
    assert "prefix: another process is building it, waiting" in done.stderr
    assert "job 1: error: score: thirteen cannot be scored" in done.stderr
    check(here)


@pytest.mark.slow
def test_optuna_is_told_the_number_of_result_json_that_the_objective_names(here: Place) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_jobs=1"]
    trials = ["hydra.sweeper.n_trials=3", "score.times=choice(2,5,9)"]
    path = "eval.perplexity.compressed"
    done = here.sweep(*words, *trials, f"objective={path}")
    assert done.returncode == 0, done.stderr
    found = here.result()
    assert found["quality"]["path"] == path
    values = {row["differs"]["score.times"]: row["objective"][path] for row in found["jobs"]}
    assert values == {"2": 24.0, "5": 21.0, "9": 25.0}
    assert "best_value: 21.0" in (here.folder / "sweep/optimization_results.yaml").read_text()
    unsaid = here.sweep(*words, *trials)
    assert unsaid.returncode == 1
    assert unsaid.stderr.startswith("error: hydra/sweeper=optuna needs an objective")


@pytest.mark.slow
def test_an_objective_that_no_result_has_fails_the_job_with_what_there_is(here: Place) -> None:
    done = here.sweep("score.times=2", "objective=eval.perplexity.compresed")
    assert done.returncode == 1
    assert "did you mean eval.perplexity.compressed?" in done.stderr


def with_slurm(here: Place) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    here.env["PATH"] = f"{FAKES}{os.pathsep}{here.env['PATH']}"
    here.env["FAKE_SLURM"] = str(here.folder.parent)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_slurm", "slurm"])
def test_slurm_runs_each_job_as_a_task_of_an_array(here: Place, launcher: str) -> None:
    with_slurm(here)
    done = here.sweep("score.times=2,13,9", f"hydra/launcher={launcher}")
    assert done.returncode == 1, done.stderr
    # the jobs' own words are in the log files of the cluster; here they are told all the same
    assert "job 1: failed on " in done.stderr and "thirteen cannot be scored" in done.stderr
    assert "job 2: done in" in done.stderr
    check(here)
    scripts = list((here.folder / "sweep/.submitit").rglob("*.sh"))
    assert any("#SBATCH --array=0-2" in path.read_text() for path in scripts)


@pytest.mark.slow
def test_a_slurm_job_that_dies_is_missing_and_the_same_command_goes_on(here: Place) -> None:
    with_slurm(here)
    when = here.folder / "sweep/jobs/1.json"
    dying = {**here.env, "FAKE_SLURM_KILL": "1", "FAKE_SLURM_WHEN": str(when)}
    words = ("score.times=2,7,9", "hydra/launcher=submitit_slurm", "prefix.seconds=8")
    done = Place(folder=here.folder, env=dying).sweep(*words)
    assert done.returncode == 1
    found = here.result()
    assert [row["status"] for row in found["jobs"]] == ["ok", "missing", "ok"]
    assert "left no result" in found["jobs"][1]["error"]
    assert "error: the launcher stopped: " in done.stderr
    again = here.sweep(*words)
    assert again.returncode == 0, again.stderr
    assert sum(row["built"] for row in here.result()["jobs"]) == 1


@pytest.mark.slow
def test_who_waits_notices_the_death_of_the_builder(here: Place) -> None:
    never = str(here.folder / "never")
    slow = Place(folder=here.folder, env={**here.env, "PREFIX_UNTIL": never})
    first = slow.start("hydra.sweep.dir=one", "score.times=2")
    wait_for(here.folder / "log.txt")
    second = here.start("hydra.sweep.dir=two", "score.times=2,3")
    assert second.stdout is not None
    assert any("prefix: another process is building it, waiting" in line for line in second.stdout)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    output, _ = second.communicate(timeout=LONGEST)
    assert second.returncode == 0, output
    assert here.prefixes() == {"begun": 2, "done": 1}
