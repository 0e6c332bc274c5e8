"""A sweep that an optimizer leads by task scores, from the command line to its leaderboard.

With lm-evaluation-harness itself: transformers looks at accelerate's version, so that no stand-in
for the two would be imported in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.frozen.models import write_model, write_text
from tests.stages.eval.tasks.standin import own_task

ROOT = Path(__file__).resolve().parents[4]
REAL = find_spec("lm_eval") is not None and find_spec("accelerate") is not None


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not REAL, reason="needs the extra lm-eval, which no test environment has")
@pytest.mark.skipif(find_spec("optuna") is None, reason="optuna is not installed")
def test_an_optimizer_is_told_task_scores_and_the_leaderboard_shows_them(tmp_path: Path) -> None:
    tasks = own_task(tmp_path / "own", rows=24)
    words = [
        *("-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1"),
        *("hydra.sweeper.direction=maximize", "objective=tasks.mean.compressed"),
        *("scheme.weights.group_size=choice(32,64)", "hydra.sweeper.sampler.seed=3"),
        *("model=local", f"model.path={write_model(tmp_path / 'model', 'llama')}"),
        *("dataset=text", f"dataset.path={write_text(tmp_path / 'text.txt')}"),
        *("dataset.num_samples=2", "dataset.sequence_length=32", "device=cpu"),
        *("eval=tasks", "eval.tasks=[mine_easy]", f"eval.include_path={tasks}"),
        *("runner.threads=1", f"store.dir={tmp_path / 'store'}", "hydra.sweep.dir=sweep"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = json.loads((tmp_path / "sweep/sweep.json").read_text())["jobs"]
    scores = {job["number"]: job["task_score"] for job in jobs}
    assert len(scores) == 2 and all(isinstance(score, float) for score in scores.values())
    for job in jobs:
        folder = tmp_path / "sweep" / job["folder"]
        result = json.loads((folder / "result.json").read_text())
        assert result["tasks"]["mean"]["compressed"] == job["task_score"]
        assert job["objective"] == {"tasks.mean.compressed": job["task_score"]}
        card = (folder / "checkpoint" / "README.md").read_text()
        assert "mine_easy (acc)" in card
    told = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
    assert told["best_value"] == pytest.approx(max(scores.values()))
    assert "tasks" in done.stdout and done.stdout.index("tasks") < done.stdout.index("sweep:")
    second = json.loads((tmp_path / "sweep/1/result.json").read_text())
    status = {node["name"]: node["status"] for node in second["nodes"]}
    assert status["scores_original"] == "hit"  # the original model is asked once
