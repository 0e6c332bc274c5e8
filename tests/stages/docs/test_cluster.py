"""The starting files of the page on clusters: their syntax, and what they start."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.registry import Registry
from tests.pipeline.tiny import composed

PAGE = (Path(__file__).resolve().parents[3] / "stages" / "docs" / "cluster.md").read_text()
BLOCK = re.compile(r"^```(bash|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SCRIPTS = [text for kind, text in BLOCK.findall(PAGE) if kind == "bash"]
[CLUSTER] = [text for kind, text in BLOCK.findall(PAGE) if kind == "yaml"]


@pytest.mark.parametrize("script", SCRIPTS, ids=["slurm", "kubernetes"])
def test_a_script_is_one_that_bash_reads_and_starts_a_valid_command(script: str) -> None:
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert checked.returncode == 0 and not checked.stderr, checked.stderr
    [words] = re.findall(r"\bpresswork (model=.*)", script.replace("\\\n", " "))
    overrides = [word for word in words.split() if word != "device=cuda"]
    cfg = composed(own_configs(), *overrides, "mode=ls", "device=cpu", name="config")
    runner = load_config(cfg, Registry.load()).runner
    assert (runner.kind, runner.address, runner.threads) == ("ray", "auto", 8)


def test_every_option_of_slurm_is_written_as_one() -> None:
    options = re.findall(r"^#SBATCH --([a-z-]+)=\S+$", SCRIPTS[0], re.MULTILINE)
    assert len(options) == SCRIPTS[0].count("#SBATCH") > 4


def test_the_cluster_for_kubernetes_is_whole_and_has_no_open_dashboard() -> None:
    cluster: dict[str, Any] = yaml.safe_load(CLUSTER)
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    head, workers = cluster["spec"]["headGroupSpec"], cluster["spec"]["workerGroupSpecs"]
    assert head["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    for spec in (group["template"]["spec"] for group in (head, *workers)):
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in spec["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert "nvidia.com/gpu" in container["resources"]["limits"]
